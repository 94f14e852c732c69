#include "runtime/kernels/elements.h"

#include "runtime/kernels/float_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/elements.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/elements-inl.h"

#if HWY_ONCE
namespace weft::runtime::elements {

HWY_EXPORT(FindMap);
HWY_EXPORT(FindCast);
HWY_EXPORT(FindPair);
HWY_EXPORT(FindSelect);

MapRow map_row(std::string_view op, DType dtype) { return HWY_DYNAMIC_DISPATCH(FindMap)(op, dtype); }
MapRow cast_row(DType from, DType to) { return HWY_DYNAMIC_DISPATCH(FindCast)(from, to); }
PairRow pair_row(std::string_view op, DType dtype) { return HWY_DYNAMIC_DISPATCH(FindPair)(op, dtype); }
SelectRow select_row(std::size_t size) { return HWY_DYNAMIC_DISPATCH(FindSelect)(size); }

}  // namespace weft::runtime::elements
#endif
