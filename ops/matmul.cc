// Matrix products.
#include <algorithm>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// c[m, n] += a[m, k] * b[k, n], in the order i, k, j.
template <class T, class Total>
void multiply(const T* a, const T* b, T* c, std::int64_t m, std::int64_t k, std::int64_t n) {
  std::vector<Total> row(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < m; ++i) {
    std::fill(row.begin(), row.end(), Total{0});
    for (std::int64_t p = 0; p < k; ++p) {
      const Total value = static_cast<Total>(a[i * k + p]);
      for (std::int64_t j = 0; j < n; ++j) {
        row[static_cast<std::size_t>(j)] += value * static_cast<Total>(b[p * n + j]);
      }
    }
    for (std::int64_t j = 0; j < n; ++j) c[i * n + j] = static_cast<T>(row[static_cast<std::size_t>(j)]);
  }
}

// Matrices as numpy.matmul sees them: vectors get an axis, which the result loses again.
struct Operands {
  Extents a, b, batch, result;
  std::int64_t m, k, n;

  Operands(Extents left, Extents right) : a(std::move(left)), b(std::move(right)) {
    if (a.empty() || b.empty()) fail(ErrorCode::kInvalidModel, "MatMul of a scalar");
    const bool vector_a = a.size() == 1;
    const bool vector_b = b.size() == 1;
    if (vector_a) a.insert(a.begin(), 1);
    if (vector_b) b.push_back(1);
    m = a[a.size() - 2];
    k = a[a.size() - 1];
    n = b[b.size() - 1];
    if (b[b.size() - 2] != k) {
      fail(ErrorCode::kInvalidModel, "MatMul of {} and {}", to_string(a), to_string(b));
    }
    batch = broadcast_extents(std::span(a).first(a.size() - 2), std::span(b).first(b.size() - 2));
    result = batch;
    if (!vector_a) result.push_back(m);
    if (!vector_b) result.push_back(n);
  }
};

void matmul_kernel(KernelContext& context) {
  const DType dtype = context.input(0).dtype();
  if (context.input(1).dtype() != dtype) fail(ErrorCode::kInvalidModel, "MatMul of two dtypes");
  const bool half = dtype == DType::kF16 || dtype == DType::kBF16;
  const Tensor a = half ? cast(context.input(0), DType::kF32) : context.input(0);
  const Tensor b = half ? cast(context.input(1), DType::kF32) : context.input(1);
  const Operands shapes(a.shape(), b.shape());
  Tensor wide;
  Tensor& out =
      half ? wide = Tensor::uninitialized(DType::kF32, shapes.result) : context.output(0, dtype, shapes.result);
  const std::array<Extents, 2> strides = {
      broadcast_strides(std::span(shapes.a).first(shapes.a.size() - 2), shapes.batch),
      broadcast_strides(std::span(shapes.b).first(shapes.b.size() - 2), shapes.batch)};
  visit_dtype(a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      using Total = std::conditional_t<std::is_integral_v<T>, std::uint64_t, T>;
      const T* x = a.data<T>().data();
      const T* y = b.data<T>().data();
      T* z = out.mutable_data<T>().data();
      const std::int64_t matrices = element_count(shapes.batch);
      for (std::int64_t i = 0; i < matrices; ++i) {
        std::int64_t rest = i, at_a = 0, at_b = 0;
        for (std::size_t axis = shapes.batch.size(); axis-- > 0;) {
          const std::int64_t index = rest % shapes.batch[axis];
          rest /= shapes.batch[axis];
          at_a += index * strides[0][axis];
          at_b += index * strides[1][axis];
        }
        multiply<T, Total>(x + at_a * shapes.m * shapes.k, y + at_b * shapes.k * shapes.n, z + i * shapes.m * shapes.n,
                           shapes.m, shapes.k, shapes.n);
      }
    } else {
      fail(ErrorCode::kInvalidModel, "MatMul of {}", to_string(dtype));
    }
  });
  if (half) context.set_output(0, cast(wide, dtype));
}

void infer_matmul(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape a = context.shape(0);
  Shape b = context.shape(1);
  if (a.empty() || b.empty()) fail(ErrorCode::kInvalidModel, "MatMul of a scalar");
  const bool vector_a = a.size() == 1;
  const bool vector_b = b.size() == 1;
  if (vector_a) a.insert(a.begin(), Dim(1));
  if (vector_b) b.emplace_back(1);
  const Dim& left = a.back();
  const Dim& right = b[b.size() - 2];
  if (left.is_constant() && right.is_constant() && !(left == right)) {
    fail(ErrorCode::kInvalidModel, "MatMul of {} and {}", to_string(a), to_string(b));
  }
  Shape result = broadcast_shapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  if (!vector_a) result.push_back(a[a.size() - 2]);
  if (!vector_b) result.push_back(b.back());
  context.set_shape(0, std::move(result));
}

// alpha * A' * B' + beta * C
void decompose_gemm(Expansion& e) {
  const auto operand = [&](std::size_t index, std::string_view flag) {
    const Expr x = e.input(index);
    return e.integer(flag) != 0 ? e.transpose(x, {1, 0}) : x;
  };
  Expr y = e.matmul(operand(0, "transA"), operand(1, "transB"));
  if (e.number("alpha") != 1.0) y = y * e.number("alpha");
  if (e.has(2)) {
    const Expr c = e.input(2);
    y = y + (e.number("beta") != 1.0 ? c * e.number("beta") : c);
  }
  e.set_output(0, y);
}

void infer_gemm(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& a = context.shape(0);
  const Shape& b = context.shape(1);
  if (a.size() != 2 || b.size() != 2) fail(ErrorCode::kInvalidModel, "Gemm wants matrices");
  const bool trans_a = context.integer("transA") != 0;
  const bool trans_b = context.integer("transB") != 0;
  const Dim& left = a[trans_a ? 0 : 1];
  const Dim& right = b[trans_b ? 1 : 0];
  if (left.is_constant() && right.is_constant() && !(left == right)) {
    fail(ErrorCode::kInvalidModel, "Gemm of {} and {}", to_string(a), to_string(b));
  }
  context.set_shape(0, {a[trans_a ? 1 : 0], b[trans_b ? 0 : 1]});
}

// --- Einsum ----------------------------------------------------------------------------------------

struct Equation {
  std::vector<std::string> inputs;
  std::string output;
};

// Ellipses are spelled out with upper-case letters from the end of the alphabet that the text does not use.
Equation parse_equation(std::string text, std::span<const std::size_t> ranks) {
  std::erase(text, ' ');
  std::string free;
  for (char c = 'Z'; c >= 'A'; --c) {
    if (text.find(c) == std::string::npos) free += c;
  }
  const std::size_t arrow = text.find("->");
  std::string left = text.substr(0, arrow);
  Equation equation;
  std::size_t widest = 0;
  for (std::size_t start = 0; start <= left.size();) {
    const std::size_t comma = std::min(left.find(',', start), left.size());
    equation.inputs.push_back(left.substr(start, comma - start));
    start = comma + 1;
  }
  if (equation.inputs.size() != ranks.size()) {
    fail(ErrorCode::kInvalidModel, "Einsum \"{}\" for {} inputs", text, ranks.size());
  }
  const auto spell = [&](std::string& term, std::size_t dims) {
    const std::size_t dots = term.find("...");
    if (dots == std::string::npos) return;
    if (dims > free.size()) fail(ErrorCode::kUnsupported, "Einsum \"{}\" needs more letters", text);
    std::string letters = free.substr(0, dims);
    std::reverse(letters.begin(), letters.end());
    term.replace(dots, 3, letters);
  };
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    std::string& term = equation.inputs[i];
    if (term.find("...") == std::string::npos) continue;
    if (ranks[i] + 3 < term.size()) fail(ErrorCode::kInvalidModel, "Einsum \"{}\": rank of input {}", text, i);
    const std::size_t dims = ranks[i] + 3 - term.size();
    widest = std::max(widest, dims);
    spell(term, dims);
  }
  if (arrow != std::string::npos) {
    equation.output = text.substr(arrow + 2);
    spell(equation.output, widest);
  } else {
    std::map<char, int> seen;
    for (const std::string& term : equation.inputs) {
      for (const char c : term) ++seen[c];
    }
    std::string dots = free.substr(0, widest);
    std::reverse(dots.begin(), dots.end());
    for (const auto& [letter, count] : seen) {
      if (count == 1 && dots.find(letter) == std::string::npos) equation.output += letter;
    }
    std::sort(equation.output.begin(), equation.output.end());
    equation.output = dots + equation.output;
  }
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (equation.inputs[i].size() != ranks[i]) {
      fail(ErrorCode::kInvalidModel, "Einsum \"{}\": input {} has rank {}", text, i, ranks[i]);
    }
  }
  return equation;
}

void infer_einsum(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  std::vector<std::size_t> ranks;
  for (std::size_t i = 0; i < context.input_count(); ++i) ranks.push_back(context.shape(i).size());
  const Equation equation = parse_equation(context.attributes().text("equation"), ranks);
  std::map<char, Dim> dims;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    for (std::size_t j = 0; j < ranks[i]; ++j) {
      const auto [place, added] = dims.emplace(equation.inputs[i][j], context.shape(i)[j]);
      if (!added) place->second = broadcast_dim(place->second, context.shape(i)[j]);
    }
  }
  Shape shape;
  for (const char c : equation.output) {
    const auto found = dims.find(c);
    if (found == dims.end()) fail(ErrorCode::kInvalidModel, "Einsum: output index {} is unknown", c);
    shape.push_back(found->second);
  }
  context.set_shape(0, std::move(shape));
}

void einsum_kernel(KernelContext& context) {
  std::vector<std::size_t> ranks;
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < context.input_count(); ++i) {
    inputs.push_back(cast(context.input(i), DType::kF64));
    ranks.push_back(context.input(i).shape().size());
  }
  const Equation equation = parse_equation(context.attributes().text("equation"), ranks);
  std::string letters = equation.output;
  std::map<char, std::int64_t> extents;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    for (std::size_t j = 0; j < ranks[i]; ++j) {
      const char c = equation.inputs[i][j];
      if (letters.find(c) == std::string::npos) letters += c;
      std::int64_t& extent = extents.emplace(c, 1).first->second;
      const std::int64_t own = inputs[i].shape()[j];
      if (own != 1 && extent != 1 && own != extent) {
        fail(ErrorCode::kInvalidModel, "Einsum: index {} is {} and {}", c, extent, own);
      }
      if (own != 1) extent = own;
    }
  }
  Extents loop, shape;
  for (const char c : letters) loop.push_back(extents[c]);
  for (const char c : equation.output) shape.push_back(extents[c]);
  Tensor result = Tensor::zeros(DType::kF64, shape);
  std::vector<Extents> strides(inputs.size() + 1, Extents(letters.size(), 0));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Extents own = row_major_strides(inputs[i].shape());
    for (std::size_t j = 0; j < own.size(); ++j) {
      if (inputs[i].shape()[j] != 1) strides[i][letters.find(equation.inputs[i][j])] += own[j];
    }
  }
  const Extents out_strides = row_major_strides(shape);
  std::copy(out_strides.begin(), out_strides.end(), strides.back().begin());
  const std::int64_t total = element_count(loop);
  double* out = result.mutable_data<double>().data();
  for (std::int64_t n = 0; n < total; ++n) {
    std::vector<std::int64_t> at(strides.size(), 0);
    std::int64_t rest = n;
    for (std::size_t axis = loop.size(); axis-- > 0;) {
      const std::int64_t index = rest % loop[axis];
      rest /= loop[axis];
      for (std::size_t k = 0; k < at.size(); ++k) at[k] += index * strides[k][axis];
    }
    double product = 1;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      product *= inputs[i].data<double>()[static_cast<std::size_t>(at[i])];
    }
    out[at.back()] += product;
  }
  context.set_output(0, cast(result, context.input(0).dtype()));
}

}  // namespace

std::span<const OpDef> matmul_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "MatMul",
       .inputs = {{"A"}, {"B"}},
       .outputs = {{"Y"}},
       .infer = infer_matmul,
       .reference = matmul_kernel},
      {.name = "Gemm",
       .inputs = {{"A"}, {"B"}, {"C", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = {{"alpha", AttributeKind::kFloat, false, Attribute(1.0)},
                      {"beta", AttributeKind::kFloat, false, Attribute(1.0)},
                      {"transA", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                      {"transB", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
       .infer = infer_gemm,
       .decompose = decompose_gemm},
      {.name = "Einsum",
       .inputs = {{"Inputs", Arity::kVariadic}},
       .outputs = {{"Output"}},
       .attributes = {{"equation", AttributeKind::kString, true}},
       .infer = infer_einsum,
       .reference = einsum_kernel},
  };
  return ops;
}

}  // namespace weft
