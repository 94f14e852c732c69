// One function a strategy; see make_search().
#pragma once

#include <memory>

#include "runtime/generate/search.h"

namespace weft::runtime {

// Greedy, and independent samples.
std::unique_ptr<Search> make_token_search(const GenerationConfig& config, const Prompt& prompt,
                                          const Callbacks& callbacks);
std::unique_ptr<Search> make_beam_search(const GenerationConfig& config, const Prompt& prompt,
                                         const Callbacks& callbacks);
std::unique_ptr<Search> make_group_beam_search(const GenerationConfig& config, const Prompt& prompt,
                                               const Callbacks& callbacks);

}  // namespace weft::runtime
