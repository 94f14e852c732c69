// Parts of fuse_normalization, by what they normalize over.
#pragma once

#include <vector>

#include "passes/rule.h"

namespace weft {

// x / sqrt(v), or x * (1 / sqrt(v)).
Pattern over_root(const Pattern& x, const Pattern& v);

// The mean over some axes, which stay as 1.
Pattern kept_mean(const Pattern& x);

// LayerNormalization over one axis, which parameters that are no vectors vary along: between Transposes where it is not
// the last.
std::vector<Rule> axis_normalization_rules();
// GroupNormalization, of an InstanceNormalization of groups or written out with means; InstanceNormalization written
// out.
std::vector<Rule> group_normalization_rules();
std::vector<Rule> instance_normalization_rules();
// L2Normalization: x / max(|x|, epsilon), and numbers that it is multiplied by.
std::vector<Rule> l2_normalization_rules();

}  // namespace weft
