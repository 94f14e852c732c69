// The passes, one file each; pipeline.cc gives their order.
#pragma once

#include <string_view>
#include <vector>

#include "passes/rule.h"

namespace weft {

struct Pass {
  std::string_view name;
  // Changes the graph and adds its rules' reports; returns how many rewrites it made.
  int (*run)(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
};

// Runs rules in order and appends one report each.
int run_rules(Graph& graph, const std::vector<Rule>& rules, std::vector<RuleReport>& reports, bool verify_rewrites);
// The report of a rule that several runs share.
RuleReport& report_of(std::vector<RuleReport>& reports, std::string_view rule);

// Canonical forms.
int canonicalize(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int inline_branches(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fold_shapes(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fold_constants(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int eliminate_common_subexpressions(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int eliminate_dead_code(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);

// Fusions.
int fuse_normalization(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fuse_activation(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fuse_linear(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fuse_rotary(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fuse_attention(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int absorb_into_attention(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);
int fuse_qkv(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites);

// Shared by fuse_qkv and counts: the Linear whose output, cut and rearranged but not mixed, reaches this
// value; invalid if there is none.
NodeId projection_of(const Graph& graph, ValueId value);

}  // namespace weft
