// Norms of sums: of a branch and what skips it, and of embeddings.
#include "ops/builder.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// `parameters`: the scale, and the bias if there is one.
Expr norm_of(Expansion& e, Expr x, std::string_view op, std::span<const ValueId> parameters) {
  std::vector<ValueId> inputs = {x};
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  return e.make(op, std::span<const ValueId>(inputs), {{"axis", std::int64_t{-1}}, {"epsilon", e.number("epsilon")}});
}

void set_norm_and_sum(Expansion& e, Expr norm, Expr sum) {
  e.set_output(0, norm);
  e.set_output(1, sum);
}

// input, skip, the scale and the bias of the norm, and a bias of the sum: the order of com.microsoft.
void decompose_skip_layer_normalization(Expansion& e) {
  Expr sum = e.input(0) + e.input(1);
  if (e.has(4)) sum = sum + e.input(4);
  std::vector<ValueId> parameters = {e.input(2)};
  if (e.has(3)) parameters.push_back(e.input(3));
  set_norm_and_sum(e, norm_of(e, sum, "LayerNormalization", parameters), sum);
}

void decompose_skip_rms_normalization(Expansion& e) {
  Expr sum = e.input(0) + e.input(1);
  if (e.has(3)) sum = sum + e.input(3);
  const ValueId scale[] = {e.input(2)};
  set_norm_and_sum(e, norm_of(e, sum, "RMSNormalization", scale), sum);
}

void infer_skip_normalization(InferContext& context) {
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(0));
  const Shape shape = broadcast_shapes(context.shape(0), context.shape(1));
  if (shape.empty()) fail(ErrorCode::kInvalidModel, "the norm of a number");
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_shape(i, shape);
}

// Tables and indices, in turns, from this input on.
Expr sum_of_embeddings(Expansion& e, std::size_t first, std::size_t count) {
  const std::vector<double>& factors = e.attributes().numbers("factors");
  Expr sum;
  for (std::size_t i = 0; i < count; ++i) {
    const Expr table = e.input(first + 2 * i), indices = e.input(first + 2 * i + 1);
    Expr rows = e.make("Gather", {table, indices}, {{"axis", std::int64_t{0}}});
    if (!factors.empty() && factors[i] != 1) rows = rows * factors[i];
    sum = sum ? sum + rows : rows;
  }
  return sum;
}

std::size_t embeddings_of(const Expansion& e, std::size_t first) {
  std::size_t count = 0;
  while (e.has(first + 2 * count)) ++count;
  return count;
}

void decompose_embed_layer_normalization(Expansion& e) {
  const Expr sum = sum_of_embeddings(e, 2, embeddings_of(e, 2));
  const ValueId parameters[] = {e.input(0), e.input(1)};
  set_norm_and_sum(e, norm_of(e, sum, "LayerNormalization", parameters), sum);
}

void decompose_embed_rms_normalization(Expansion& e) {
  const Expr sum = sum_of_embeddings(e, 1, embeddings_of(e, 1));
  const ValueId scale[] = {e.input(0)};
  set_norm_and_sum(e, norm_of(e, sum, "RMSNormalization", scale), sum);
}

void infer_embeddings(InferContext& context, std::size_t first) {
  const std::size_t count = context.input_count() < first ? 0 : (context.input_count() - first) / 2;
  const std::vector<double>& factors = context.attributes().numbers("factors");
  if (count == 0 || context.input_count() != first + 2 * count || (!factors.empty() && factors.size() != count)) {
    fail(ErrorCode::kInvalidModel, "{} inputs and {} factors for tables and indices", context.input_count(),
         factors.size());
  }
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(first));
  Shape shape = {context.shape(0).empty() ? Dim(1) : context.shape(0).back()};
  for (std::size_t i = first; i < context.input_count(); i += 2) {
    const Shape& table = context.shape(i);
    if (table.size() != 2 || (table[1].is_constant() && shape.back().is_constant() && !(table[1] == shape.back()))) {
      fail(ErrorCode::kInvalidModel, "a table of {} in a sum of rows of {}", to_string(table), to_string(shape));
    }
    Shape rows = context.shape(i + 1);
    rows.push_back(table[1]);
    shape = broadcast_shapes(shape, rows);
  }
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_shape(i, shape);
}

void infer_embed_layer_normalization(InferContext& context) { infer_embeddings(context, 2); }
void infer_embed_rms_normalization(InferContext& context) { infer_embeddings(context, 1); }

AttributeDef epsilon() { return {"epsilon", AttributeKind::kFloat, false, Attribute(1e-5)}; }
AttributeDef factors() { return {"factors", AttributeKind::kFloats, false, Attribute(std::vector<double>())}; }

}  // namespace

std::span<const OpDef> fused_normalization_ops() {
  static const std::vector<Parameter> outputs = {{"output"}, {"sum", Arity::kOptional}};
  static const std::vector<OpDef> ops = {
      {.name = "SkipLayerNormalization",
       .inputs = {{"input"}, {"skip"}, {"gamma"}, {"beta", Arity::kOptional}, {"bias", Arity::kOptional}},
       .outputs = outputs,
       .attributes = {epsilon()},
       .infer = infer_skip_normalization,
       .decompose = decompose_skip_layer_normalization},
      {.name = "SkipRMSNormalization",
       .inputs = {{"input"}, {"skip"}, {"scale"}, {"bias", Arity::kOptional}},
       .outputs = outputs,
       .attributes = {epsilon()},
       .infer = infer_skip_normalization,
       .decompose = decompose_skip_rms_normalization},
      {.name = "EmbedLayerNormalization",
       .inputs = {{"gamma"}, {"beta"}, {"tables_and_indices", Arity::kVariadic}},
       .outputs = outputs,
       .attributes = {epsilon(), factors()},
       .infer = infer_embed_layer_normalization,
       .decompose = decompose_embed_layer_normalization},
      {.name = "EmbedRMSNormalization",
       .inputs = {{"scale"}, {"tables_and_indices", Arity::kVariadic}},
       .outputs = outputs,
       .attributes = {epsilon(), factors()},
       .infer = infer_embed_rms_normalization,
       .decompose = decompose_embed_rms_normalization},
  };
  return ops;
}

}  // namespace weft
