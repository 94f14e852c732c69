// Constants of a model on their way into the kernels.
#pragma once

#include <filesystem>

#include "runtime/compiled.h"
#include "runtime/weight_store.h"

namespace weft::runtime {

// Before kernels are chosen: constants are aligned as kernels read them, but for those that kernels pack, which are
// read where they are. store: where equal constants are looked for; null: nowhere.
void align_constants(Graph& graph, WeightStore* store);

// Of a graph whose constants have not been packed yet: its nodes and a sample of its constants, and weft's version.
PackedKey identity_of(const Graph& graph);

// After kernels are chosen: packs weights, largest first and on all processors, and gives back the originals (their
// memory, or the pages of the mapped file) as it goes. packed_folder: where packed weights are looked for before and
// kept after that; empty: nowhere. store: where equal weights are looked for that another model has packed; null:
// nowhere.
void pack_weights(Model::Impl& impl, const std::filesystem::path& packed_folder, WeightStore* store);

}  // namespace weft::runtime
