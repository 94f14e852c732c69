// Caches of any layout as states: three runs with the cache handed on by the caller, and by the states.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <regex>

#include "graph/text.h"
#include "ops/op_def.h"
#include "passes/cache_lifts.h"
#include "tests/tensors.h"

namespace weft {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Tokens before and in a run.
struct Step {
  std::int64_t past, added;
};

// What a decode loop gives: positions [S], masks [B, T] of ones.
Tensor integers(const TensorType& type, const Bindings& sizes, const Step& step) {
  Extents extents = *evaluate(*type.shape, sizes);
  if (extents.size() == 2) return Tensor::full(DType::kI64, extents, 1);
  std::vector<std::int64_t> positions(static_cast<std::size_t>(step.added));
  std::iota(positions.begin(), positions.end(), step.past);
  return Tensor::vector<std::int64_t>(positions);
}

// With random contents, but for pasts, which are in `carried`.
std::vector<Tensor> inputs_of(const Graph& graph, const Bindings& sizes, const Step& step,
                              const std::map<std::string, Tensor>& carried) {
  std::vector<Tensor> inputs;
  const auto add = [&](const std::string& name, ValueId id) {
    if (is_integer(graph.value(id).type.dtype)) {
      inputs.push_back(integers(graph.value(id).type, sizes, step));
      return;
    }
    const auto found = carried.find(name);
    const std::uint32_t seed = static_cast<std::uint32_t>(name.size() * 7 + static_cast<unsigned char>(name.back()));
    inputs.push_back(found != carried.end() ? found->second
                                            : random_floats(*evaluate(*graph.value(id).type.shape, sizes), seed));
  };
  for (const ValueId id : graph.inputs()) add(graph.value(id).name, id);
  for (const State& state : graph.states()) add(state.name, state.current);
  return inputs;
}

// The first output of runs of 2, 1 and 3 tokens, for 2 rows.
std::vector<Tensor> run_thrice(const Graph& graph, const Pairs& pairs) {
  std::map<std::string, Tensor> carried;
  std::int64_t past = 0;
  const auto sizes_of = [&](std::int64_t steps) {
    Bindings sizes = {{"B", 2}, {"N", 4}, {"P", past}, {"S", steps}, {"T", past + steps}};
    for (const State& state : graph.states()) {
      for (const std::string& length : (*graph.value(state.current).type.shape)[2].symbols()) sizes[length] = past;
    }
    return sizes;
  };
  for (const ValueId id : graph.inputs()) {
    for (const auto& [name, present] : pairs) {
      if (name == graph.value(id).name)
        carried[name] = Tensor::zeros(DType::kF32, *evaluate(*graph.value(id).type.shape, sizes_of(0)));
    }
  }
  for (const State& state : graph.states())
    carried[state.name] = Tensor::zeros(DType::kF32, *evaluate(*graph.value(state.current).type.shape, sizes_of(0)));
  std::vector<Tensor> results;
  for (const std::int64_t steps : {2, 1, 3}) {
    const std::vector<Tensor> outputs =
        evaluate_graph(graph, inputs_of(graph, sizes_of(steps), {past, steps}, carried));
    results.push_back(outputs[0]);
    for (std::size_t i = 0; i < graph.outputs().size(); ++i) {
      for (const auto& [name, present] : pairs) {
        if (present == graph.outputs()[i].name) carried[name] = outputs[i];
      }
    }
    for (std::size_t i = 0; i < graph.states().size(); ++i)
      carried[graph.states()[i].name] = outputs[graph.outputs().size() + i];
    past += steps;
  }
  return results;
}

Graph parsed(const std::string& text) {
  Graph graph = parse_graph(text);
  unify_extents(graph);
  optimize(graph, {.passes = canonical_passes()});
  return graph;
}

// Names of the states that come out; the numbers are compared.
std::vector<std::string> lifted_states(const std::string& text, const Pairs& pairs) {
  const Graph before = parsed(text);
  Graph after = before.clone();
  lift_cache_states(after, pairs);
  verify(after);
  const std::vector<Tensor> expected = run_thrice(before, pairs), actual = run_thrice(after, pairs);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].shape(), actual[i].shape());
    for (std::size_t k = 0; k < expected[i].data<float>().size(); ++k)
      EXPECT_EQ(expected[i].data<float>()[k], actual[i].data<float>()[k]) << "run " << i << " element " << k;
  }
  std::vector<std::string> names;
  for (const State& state : after.states()) names.push_back(state.name);
  Graph halves = parsed(std::regex_replace(text, std::regex("f32"), "f16"));
  lift_cache_states(halves, pairs);
  verify(halves);
  std::vector<std::string> of_halves;
  for (const State& state : halves.states()) {
    of_halves.push_back(state.name);
    EXPECT_EQ(halves.value(state.current).type.dtype, DType::kF16);
  }
  EXPECT_EQ(of_halves, names);
  return names;
}

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::string_view kIntegers =
    "  const %zero: i64[] = [0]\n"
    "  const %one: i64[] = [1]\n"
    "  const %at0: i64[1] = [0]\n"
    "  const %at1: i64[1] = [1]\n"
    "  const %at2: i64[1] = [2]\n"
    "  const %at4: i64[1] = [4]\n"
    "  const %at8: i64[1] = [8]\n"
    "  const %last: i64[1] = [-1]\n";

std::string body(std::string_view signature, std::string_view nodes) {
  return fmt::format("graph \"g\"({}) {{\n{}{}}}\n", signature, kIntegers, nodes);
}

TEST(RearrangedCaches, TimeBeforeHeads) {
  const std::string text = body(
      "%q: f32[B, 4, S, 4], %k: f32[B, S, 2, 4], %v: f32[B, S, 2, 4], %past_k: f32[B, P, 2, 4], %past_v: f32[B, P, 2, "
      "4]) "
      "-> (\"y\" = %y, \"present_k\" = %kk, \"present_v\" = %vv",
      "  %kk: f32[B, P + S, 2, 4] = Concat(%past_k, %k) {axis = 1}\n"
      "  %vv: f32[B, P + S, 2, 4] = Concat(%past_v, %v) {axis = 1}\n"
      "  %kt: f32[B, 2, P + S, 4] = Transpose(%kk) {perm = [0, 2, 1, 3]}\n"
      "  %vt: f32[B, 2, P + S, 4] = Transpose(%vv) {perm = [0, 2, 1, 3]}\n"
      "  %y: f32[B, 4, S, 4] = Attention(%q, %kt, %vt) {is_causal = 1, query_position = \"end\", scale = 0.5}\n");
  EXPECT_THAT(lifted_states(text, {{"past_k", "present_k"}, {"past_v", "present_v"}}), ElementsAre("past_k", "past_v"));
}

TEST(RearrangedCaches, TimeOutermostAndKeysTransposed) {
  const std::string text = body(
      "%q: f32[B, 2, S, 4], %k: f32[B, 2, 4, S], %v: f32[S, B, 2, 4], %past_k: f32[B, 2, 4, P], %past_v: f32[P, B, 2, "
      "4]) "
      "-> (\"y\" = %y, \"present_k\" = %kk, \"present_v\" = %vv",
      "  %kk: f32[B, 2, 4, P + S] = Concat(%past_k, %k) {axis = 3}\n"
      "  %vv: f32[P + S, B, 2, 4] = Concat(%past_v, %v) {axis = 0}\n"
      "  %kt: f32[B, 2, P + S, 4] = Transpose(%kk) {perm = [0, 1, 3, 2]}\n"
      "  %vt: f32[B, 2, P + S, 4] = Transpose(%vv) {perm = [1, 2, 0, 3]}\n"
      "  %y: f32[B, 2, S, 4] = Attention(%q, %kt, %vt) {scale = 0.5}\n");
  EXPECT_THAT(lifted_states(text, {{"past_k", "present_k"}, {"past_v", "present_v"}}), ElementsAre("past_k", "past_v"));
}

// Keys and values of a layer in one tensor, told apart by Gather and put together by Unsqueeze and Concat.
constexpr std::string_view kStacked =
    "%q: f32[B, 2, S, 4], %k: f32[B, 2, S, 4], %v: f32[B, 2, S, 4], %past: f32[2, B, 2, P, 4]) -> (\"y\" = %y, "
    "\"present\" = %both";

std::string stacked(std::string_view joined) {
  return body(kStacked, fmt::format("  %pk: f32[B, 2, P, 4] = Gather(%past, %zero) {{axis = 0}}\n"
                                    "  %pv: f32[B, 2, P, 4] = Gather(%past, %one) {{axis = 0}}\n"
                                    "  %kk: f32[B, 2, P + S, 4] = Concat(%pk, %k) {{axis = 2}}\n"
                                    "  %vv: f32[B, 2, P + S, 4] = Concat(%pv, %v) {{axis = 2}}\n"
                                    "  %uk: f32[1, B, 2, P + S, 4] = Unsqueeze(%kk, %at0)\n"
                                    "  %uv: f32[1, B, 2, P + S, 4] = Unsqueeze(%vv, %at0)\n"
                                    "  %both: f32[2, B, 2, P + S, 4] = Concat({}) {{axis = 0}}\n"
                                    "  %y: f32[B, 2, S, 4] = Attention(%q, %kk, %vv) {{scale = 0.5}}\n",
                                    joined));
}

TEST(RearrangedCaches, StackedKeysAndValues) {
  EXPECT_THAT(lifted_states(stacked("%uk, %uv"), {{"past", "present"}}), ElementsAre("past.0", "past.1"));
}

// Keys would be the values of the run before.
TEST(RearrangedCaches, KeysAndValuesThatChangePlacesAreNone) {
  EXPECT_THAT(lifted_states(stacked("%uv, %uk"), {{"past", "present"}}), IsEmpty());
}

TEST(RearrangedCaches, SideBySideInTheLastAxis) {
  const std::string text =
      body("%q: f32[B, 2, S, 4], %kv: f32[B, S, 8], %past: f32[B, P, 8]) -> (\"y\" = %y, \"present\" = %all",
           "  %all: f32[B, P + S, 8] = Concat(%past, %kv) {axis = 1}\n"
           "  %wide: f32[B, 1, P + S, 8] = Unsqueeze(%all, %at1)\n"
           "  %kk: f32[B, 1, P + S, 4] = Slice(%wide, %at0, %at4, %last)\n"
           "  %vv: f32[B, 1, P + S, 4] = Slice(%wide, %at4, %at8, %last)\n"
           "  %y: f32[B, 2, S, 4] = Attention(%q, %kk, %vv) {scale = 0.5}\n");
  EXPECT_THAT(lifted_states(text, {{"past", "present"}}), ElementsAre("past.0", "past.1"));
}

// [B * H, D, P] and [B * H, P, D]: what is joined says that N is 2 * B.
TEST(RearrangedCaches, HeadsAmongTheRows) {
  const std::string text = body(
      "%q: f32[B, 2, S, 4], %k: f32[2*B, 4, S], %v: f32[2*B, S, 4], %past_k: f32[N, 4, P], %past_v: f32[N, P, 4]) -> "
      "(\"y\" = %y, \"present_k\" = %kk, \"present_v\" = %vv",
      "  %kk: f32[N, 4, P + S] = Concat(%past_k, %k) {axis = 2}\n"
      "  %vv: f32[N, P + S, 4] = Concat(%past_v, %v) {axis = 1}\n"
      "  %turned: f32[N, P + S, 4] = Transpose(%kk) {perm = [0, 2, 1]}\n"
      "  %sq: i64[4] = Shape(%q)\n"
      "  %b: i64[1] = Slice(%sq, %at0, %at1)\n"
      "  %shape: i64[4] = Concat(%b, %at2, %last, %at4) {axis = 0}\n"
      "  %k4: f32[B, 2, P + S, 4] = Reshape(%turned, %shape)\n"
      "  %v4: f32[B, 2, P + S, 4] = Reshape(%vv, %shape)\n"
      "  %y: f32[B, 2, S, 4] = Attention(%q, %k4, %v4) {scale = 0.5}\n");
  EXPECT_THAT(lifted_states(text, {{"past_k", "present_k"}, {"past_v", "present_v"}}), ElementsAre("past_k", "past_v"));
}

struct Refused {
  std::string_view name, at, reason, nodes;  // at: the operator that stands in the way
};

class RefusedCaches : public ::testing::TestWithParam<Refused> {};

// [B, P, 2, 4], as above, with something that a state would not do.
TEST_P(RefusedCaches, StayInputs) {
  const std::string text =
      body("%q: f32[B, 2, S, 4], %k: f32[B, S, 2, 4], %past: f32[B, P, 2, 4]) -> (\"y\" = %y, \"present\" = %present",
           GetParam().nodes);
  EXPECT_THAT(lifted_states(text, {{"past", "present"}}), IsEmpty());
  Graph graph = parsed(text);
  const std::vector<CacheLift> lifts = lift_and_explain_caches(graph, {{"past", "present"}, {"absent", "present"}});
  ASSERT_EQ(lifts.size(), 1u);
  EXPECT_EQ(lifts[0].past, "past");
  ASSERT_TRUE(lifts[0].near_miss);
  EXPECT_THAT(lifts[0].near_miss->found, ::testing::StartsWith(GetParam().at));
  EXPECT_THAT(lifts[0].near_miss->reason, ::testing::HasSubstr(GetParam().reason));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedCaches,
    ::testing::Values(Refused{"NewTokensInFront", "Attention(", "is not the cache with new tokens behind it",
                              "  %present: f32[B, P + S, 2, 4] = Concat(%k, %past) {axis = 1}\n"
                              "  %kt: f32[B, 2, P + S, 4] = Transpose(%present) {perm = [0, 2, 1, 3]}\n"
                              "  %y: f32[B, 2, S, 4] = Attention(%q, %kt, %kt) {scale = 0.5}\n"},
                      Refused{"Scaled", "Add(", "Add found",
                              "  %present: f32[B, P + S, 2, 4] = Concat(%past, %k) {axis = 1}\n"
                              "  %kt: f32[B, 2, P + S, 4] = Transpose(%present) {perm = [0, 2, 1, 3]}\n"
                              "  %half: f32[B, 2, P + S, 4] = Add(%kt, %kt)\n"
                              "  %y: f32[B, 2, S, 4] = Attention(%q, %half, %half) {scale = 0.5}\n"},
                      Refused{"ReadByOthers", "ReduceSum(", "ReduceSum found",
                              "  %present: f32[B, P + S, 2, 4] = Concat(%past, %k) {axis = 1}\n"
                              "  %kt: f32[B, 2, P + S, 4] = Transpose(%present) {perm = [0, 2, 1, 3]}\n"
                              "  %z: f32[B, 2, S, 4] = Attention(%q, %kt, %kt) {scale = 0.5}\n"
                              "  %sum: f32[B, 2, 1, 4] = ReduceSum(%kt, %at2) {keepdims = 1}\n"
                              "  %y: f32[B, 2, S, 4] = Add(%z, %sum)\n"},
                      Refused{"WithoutTheNewTokens", "Attention(", "is not the cache with new tokens behind it",
                              "  %present: f32[B, P + S, 2, 4] = Concat(%past, %k) {axis = 1}\n"
                              "  %kt: f32[B, 2, P, 4] = Transpose(%past) {perm = [0, 2, 1, 3]}\n"
                              "  %y: f32[B, 2, S, 4] = Attention(%q, %kt, %kt) {scale = 0.5}\n"},
                      // Right for two heads of four, but the next run would read them as four of two.
                      Refused{"HeadsMixedWithSizes", "Attention(", "is not the cache with new tokens behind it",
                              "  const %mixed: i64[4] = [0, 0, 4, 2]\n"
                              "  const %back: i64[4] = [0, 0, 2, 4]\n"
                              "  %all: f32[B, P + S, 2, 4] = Concat(%past, %k) {axis = 1}\n"
                              "  %kt: f32[B, 2, P + S, 4] = Transpose(%all) {perm = [0, 2, 1, 3]}\n"
                              "  %m: f32[B, P + S, 4, 2] = Reshape(%all, %mixed)\n"
                              "  %mt: f32[B, P + S, 2, 4] = Transpose(%m) {perm = [0, 1, 3, 2]}\n"
                              "  %present: f32[B, P + S, 2, 4] = Reshape(%mt, %back)\n"
                              "  %y: f32[B, 2, S, 4] = Attention(%q, %kt, %kt) {scale = 0.5}\n"}),
    [](const auto& info) { return std::string(info.param.name); });

// A buffer of 12 tokens, written where `positions` says and masked behind.
std::string buffer(std::string_view write, std::string_view compare = "LessOrEqual", std::string_view fill = "-inf") {
  return body(
      "%q: f32[B, 2, S, 4], %k: f32[B, 2, S, 4], %positions: i64[S], %past: f32[B, 2, 12, 4]) -> (\"y\" = %y, "
      "\"present\" = %all",
      fmt::format("  const %keys: i64[12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n"
                  "  const %see: f32[] = [0.0]\n"
                  "  const %hide: f32[] = [{2}]\n"
                  "{0}"
                  "  %queries: i64[S, 1] = Unsqueeze(%positions, %at1)\n"
                  "  %sees: bool[S, 12] = {1}(%keys, %queries)\n"
                  "  %mask: f32[S, 12] = Where(%sees, %see, %hide)\n"
                  "  %y: f32[B, 2, S, 4] = Attention(%q, %all, %all, %mask) {{scale = 0.5}}\n",
                  write, compare, fill));
}

constexpr std::string_view kScatterND =
    "  %index: i64[S, 1] = Unsqueeze(%positions, %at1)\n"
    "  %turned: f32[12, B, 2, 4] = Transpose(%past) {perm = [2, 0, 1, 3]}\n"
    "  %added: f32[S, B, 2, 4] = Transpose(%k) {perm = [2, 0, 1, 3]}\n"
    "  %written: f32[12, B, 2, 4] = ScatterND(%turned, %index, %added)\n"
    "  %all: f32[B, 2, 12, 4] = Transpose(%written) {perm = [1, 2, 0, 3]}\n";
constexpr std::string_view kScatterElements =
    "  %sk: i64[4] = Shape(%k)\n"
    "  %column: i64[S, 1] = Unsqueeze(%positions, %at1)\n"
    "  %index: i64[B, 2, S, 4] = Expand(%column, %sk)\n"
    "  %all: f32[B, 2, 12, 4] = ScatterElements(%past, %index, %k) {axis = 2}\n";
// One place for each row: the first of the new positions.
constexpr std::string_view kTensorScatter =
    "  %first: i64[1] = Slice(%positions, %at0, %at1)\n"
    "  %sk: i64[4] = Shape(%k)\n"
    "  %rows: i64[1] = Slice(%sk, %at0, %at1)\n"
    "  %places: i64[B] = Expand(%first, %rows)\n"
    "  %all: f32[B, 2, 12, 4] = TensorScatter(%past, %k, %places) {axis = 2}\n";

TEST(BufferedCaches, GrowWhereTheyAreWritten) {
  for (const std::string_view write : {kScatterND, kScatterElements, kTensorScatter})
    EXPECT_THAT(lifted_states(buffer(write), {{"past", "present"}}), ElementsAre("past")) << write;
}

// Nothing is left of positions, masks and lengths: attention counts them itself.
TEST(BufferedCaches, LeaveNoMask) {
  Graph graph = parsed(buffer(kScatterND));
  ASSERT_EQ(lift_cache_states(graph, {{"past", "present"}}), 1);
  EXPECT_EQ(graph.inputs().size(), 2u);
  ASSERT_EQ(graph.node_count(), 2u);
  const Node& attention = graph.node(graph.value(graph.outputs()[0].value).producer);
  EXPECT_EQ(attention.op, "Attention");
  for (std::size_t i = 3; i < attention.inputs.size(); ++i) EXPECT_FALSE(attention.inputs[i].valid());
  EXPECT_EQ(std::get<std::string>(attention.attributes.at("query_position")), "end");
}

TEST(BufferedCaches, SeenBeyondWhatIsWrittenStay) {
  const Pairs pairs = {{"past", "present"}};
  // Query s sees key s + 1 too, which nobody has written after the last.
  EXPECT_THAT(lifted_states(buffer(kScatterND, "GreaterOrEqual"), pairs), IsEmpty());
  // What lies behind weighs a little.
  EXPECT_THAT(lifted_states(buffer(kScatterND, "LessOrEqual", "-10000.0"), pairs), IsEmpty());
  // The first query sees nothing at all, and so everything.
  EXPECT_THAT(lifted_states(buffer(kScatterND, "Less", "-3.4e38"), pairs), IsEmpty());
  // Written from the beginning every time.
  EXPECT_THAT(lifted_states(buffer("  %sk: i64[4] = Shape(%k)\n"
                                   "  %rows: i64[1] = Slice(%sk, %at0, %at1)\n"
                                   "  %places: i64[B] = Expand(%at0, %rows)\n"
                                   "  %all: f32[B, 2, 12, 4] = TensorScatter(%past, %k, %places) {axis = 2}\n"),
                            pairs),
              IsEmpty());
}

TEST(CacheLifts, SayWhatIsMissingWhereNoNodeIs) {
  const std::string text =
      "graph \"g\"(%q: f32[B, 2, S, 4], %other: f64[B, 2, P, 4], %past: f32[B, 2, P, 4], %k: f64[B, 2, S, 4]) -> "
      "(\"y\" "
      "= "
      "%y, \"all\" = %all) {\n"
      "  %all: f64[B, 2, P + S, 4] = Concat(%other, %k) {axis = 2}\n"
      "  %y: f32[B, 2, S, 4] = Attention(%q, %past, %past) {scale = 0.5}\n"
      "}\n";
  Graph graph = parsed(text);
  const std::vector<CacheLift> lifts = lift_and_explain_caches(graph, {{"other", "all"}, {"past", "none"}});
  ASSERT_EQ(lifts.size(), 2u);
  EXPECT_FALSE(lifts[0].near_miss);
  EXPECT_EQ(lifts[0].reason, "f32, f16 or bf16 of a known rank wanted, f64[B, 2, P, 4] found");
  EXPECT_THAT(lifts[1].states, ElementsAre("past"));
  Graph again = parsed(text);
  EXPECT_EQ(lift_and_explain_caches(again, {{"other", "none"}})[0].reason,
            "[B, heads, P, size] of f32, f16 or bf16 wanted, f64[B, 2, P, 4] found");
}

TEST(CacheLifts, BuffersSeenBehindNameTheirAttention) {
  Graph graph = parsed(buffer(kScatterND, "GreaterOrEqual"));
  const std::vector<CacheLift> lifts = lift_and_explain_caches(graph, {{"past", "present"}});
  ASSERT_TRUE(lifts.at(0).near_miss);
  EXPECT_THAT(lifts[0].near_miss->found, ::testing::StartsWith("Attention("));
  EXPECT_THAT(lifts[0].near_miss->reason, ::testing::HasSubstr("does not leave out what lies behind"));
}

// As onnxruntime-genai has it: longer by as much as is missing, written where a mask of ones says.
TEST(BufferedCaches, PlacesCountedFromAMask) {
  const std::string text = body(
      "%q: f32[B, 2, S, 4], %k: f32[B, 2, S, 4], %attention_mask: i64[B, T], %past: f32[B, 2, P, 4]) -> (\"y\" = %y, "
      "\"present\" = %all",
      "  const %sizes: i64[1] = [2]\n"
      "  %ones: i64[B] = ReduceSum(%attention_mask, %at1) {keepdims = 0}\n"
      "  %sk: i64[4] = Shape(%k)\n"
      "  %steps: i64[1] = Gather(%sk, %sizes) {axis = 0}\n"
      "  %places: i64[B] = Sub(%ones, %steps)\n"
      "  %sm: i64[2] = Shape(%attention_mask)\n"
      "  %total: i64[1] = Gather(%sm, %at1) {axis = 0}\n"
      "  %sp: i64[4] = Shape(%past)\n"
      "  %length: i64[1] = Gather(%sp, %sizes) {axis = 0}\n"
      "  %missing: i64[1] = Sub(%total, %length)\n"
      "  %pads: i64[2] = Concat(%at0, %missing) {axis = 0}\n"
      "  %long: f32[B, 2, T, 4] = Pad(%past, %pads, _, %sizes)\n"
      "  %all: f32[B, 2, T, 4] = TensorScatter(%long, %k, %places) {axis = 2}\n"
      "  %y: f32[B, 2, S, 4] = Attention(%q, %all, %all) {scale = 0.5}\n");
  EXPECT_THAT(lifted_states(text, {{"past", "present"}}), ElementsAre("past"));
}

// Of two files the second goes on with what the first gives: its caches keep their layout.
TEST(RearrangedCaches, StayWhenAskedTo) {
  Graph graph = parsed(stacked("%uk, %uv"));
  EXPECT_EQ(lift_cache_states(graph, {{"past", "present"}}, false), 0);
  EXPECT_TRUE(graph.states().empty());
}

}  // namespace
}  // namespace weft
