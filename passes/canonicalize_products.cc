// Products of matrices in one spelling: Einsum as MatMul, transposed products as products of transposes, and no
// flattening of rows before a product with a matrix of weights.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// --- Einsum ----------------------------------------------------------------------------------------------

// Two operands a and b: their letters by role.
struct Contraction {
  std::string a, b, out;
  std::string batch, rows, columns, inner;  // rows are a's alone, columns b's
};

// Letters instead of "...", which stands for the axes of a term that have none; of the result, for those of the operand
// that has most. The same letters from behind, which no term has.
std::string without_ellipsis(std::string equation, std::int64_t a_rank, std::int64_t b_rank) {
  constexpr std::string_view kDots = "...", kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const std::string given = equation;
  std::string free;
  for (const char letter : kLetters) {
    if (given.find(letter) == std::string::npos) free += letter;
  }
  const std::size_t comma = given.find(','), arrow = given.find("->");
  if (comma == std::string::npos || arrow == std::string::npos || comma > arrow) return equation;
  const auto named = [&](std::size_t from, std::size_t to) {
    return static_cast<std::int64_t>(std::count_if(given.begin() + static_cast<std::ptrdiff_t>(from),
                                                   given.begin() + static_cast<std::ptrdiff_t>(to),
                                                   [](char c) { return c != '.'; }));
  };
  const std::int64_t of_a = a_rank - named(0, comma), of_b = b_rank - named(comma + 1, arrow);
  const std::int64_t counts[] = {of_a, of_b, std::max(of_a, of_b)};
  const std::size_t starts[] = {0, comma + 1, arrow + 2}, ends[] = {comma, arrow, given.size()};
  const auto most = static_cast<std::int64_t>(free.size());
  if (of_a < 0 || of_b < 0 || counts[2] > most) return equation;
  for (std::size_t term = 3; term-- > 0;) {  // those before stay where they are
    const std::size_t dots = given.find(kDots, starts[term]);
    if (dots == std::string::npos || dots >= ends[term]) continue;
    const auto count = static_cast<std::size_t>(counts[term]);
    equation.replace(dots, kDots.size(), free.substr(static_cast<std::size_t>(counts[2]) - count, count));
  }
  return equation;
}

std::optional<Contraction> read_contraction(const std::string& text, std::int64_t a_rank, std::int64_t b_rank) {
  std::string equation;
  std::copy_if(text.begin(), text.end(), std::back_inserter(equation), [](char c) { return c != ' '; });
  equation = without_ellipsis(std::move(equation), a_rank, b_rank);
  const std::size_t comma = equation.find(','), arrow = equation.find("->");
  if (comma == std::string::npos || arrow == std::string::npos || comma > arrow ||
      equation.find(',', comma + 1) != std::string::npos || equation.find('.') != std::string::npos) {
    return std::nullopt;
  }
  Contraction c{equation.substr(0, comma),
                equation.substr(comma + 1, arrow - comma - 1),
                equation.substr(arrow + 2),
                {},
                {},
                {},
                {}};
  const auto has = [](const std::string& letters, char letter) { return letters.find(letter) != std::string::npos; };
  for (const std::string& letters : {c.a, c.b, c.out}) {
    for (const char letter : letters) {
      if (std::count(letters.begin(), letters.end(), letter) != 1) return std::nullopt;
    }
  }
  for (const char letter : c.out) {
    const bool in_a = has(c.a, letter), in_b = has(c.b, letter);
    if (!in_a && !in_b) return std::nullopt;
    (in_a && in_b ? c.batch : in_a ? c.rows : c.columns) += letter;
  }
  for (const char letter : c.a) {
    if (has(c.out, letter)) continue;
    if (!has(c.b, letter)) return std::nullopt;  // summed alone
    c.inner += letter;
  }
  for (const char letter : c.b) {
    if (!has(c.out, letter) && !has(c.a, letter)) return std::nullopt;
  }
  if (c.inner.empty() || c.rows.empty() || c.columns.empty()) return std::nullopt;
  return c;
}

// Columns before rows in the result: the operands change places, so that fewer axes move.
Contraction ordered(Contraction c) {
  if (c.out.find(c.rows.front()) < c.out.find(c.columns.front())) return c;
  std::swap(c.a, c.b);
  std::swap(c.rows, c.columns);
  return c;
}

std::vector<std::int64_t> places(const std::string& letters, const std::string& order) {
  std::vector<std::int64_t> perm;
  for (const char letter : order) perm.push_back(static_cast<std::int64_t>(letters.find(letter)));
  return perm;
}

// The product of the extents of these letters; nullopt when one is a symbol (a single letter may be).
std::optional<std::int64_t> extent_of(const Shape& shape, const std::string& letters, const std::string& group) {
  std::int64_t product = 1;
  for (const char letter : group) {
    const Dim& dim = shape[letters.find(letter)];
    if (!dim.is_constant() || dim.is(0)) return std::nullopt;
    product *= dim.value();
  }
  return product;
}

Expr permuted(Builder& b, Expr x, const std::vector<std::int64_t>& perm) {
  return std::is_sorted(perm.begin(), perm.end()) ? x : b.transpose(x, perm);
}

// i64: the extents of some letters of a tensor, one after the other.
void push_extents(Builder& b, ValueId tensor, const std::string& letters, const std::string& wanted,
                  std::vector<ValueId>& to) {
  for (const char letter : wanted) {
    const auto axis = static_cast<std::int64_t>(letters.find(letter));
    const Dim extent = b.dim(tensor, axis);
    to.push_back(extent.is_constant() ? b.ints({extent.value()}).id() : b.extent_of(b.wrap(tensor), axis).id());
  }
}

// Rows of several axes in a batch of products are those of one axis meanwhile.
Expr product_of_merged_rows(Builder& b, const Contraction& c, ValueId a, ValueId other, Expr x, Expr w) {
  const std::vector<std::int64_t> kept(c.batch.size(), 0);
  std::vector<ValueId> merged = {b.ints(kept).id(), b.ints({-1}).id()}, apart = {b.ints(kept).id()};
  push_extents(b, a, c.a, c.inner, merged);
  push_extents(b, a, c.a, c.rows, apart);
  push_extents(b, other, c.b, c.columns, apart);
  return b.reshape(b.matmul(b.reshape(x, b.concat(merged, 0)), w), b.concat(apart, 0));
}

// Rows of several axes in the order of the result where that is the larger (scores rather than q), else of the operand.
void order_rows(Contraction& c, const Shape& a, const Shape& b) {
  const auto is_known = [](const Shape& shape, const std::string& letters, char letter) {
    return shape[letters.find(letter)].is_constant();
  };
  const bool as_result = is_known(a, c.a, c.inner.front()) && !is_known(b, c.b, c.columns.front());
  const std::string& order = as_result ? c.out : c.a;
  std::sort(c.rows.begin(), c.rows.end(), [&](char p, char q) { return order.find(p) < order.find(q); });
}

bool expand_einsum(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (node.inputs.size() != 2) return false;
  auto read = read_contraction(attributes_of(node).text("equation"), rank_of(graph, node.inputs[0]),
                               rank_of(graph, node.inputs[1]));
  if (!read) return false;
  const std::string first = read->a;
  Contraction c = ordered(*read);
  ValueId a = node.inputs[0], b = node.inputs[1];
  if (c.a != first) std::swap(a, b);
  const Shape *a_shape = shape_of(graph, a), *b_shape = shape_of(graph, b);
  if (a_shape == nullptr || b_shape == nullptr || a_shape->size() != c.a.size() || b_shape->size() != c.b.size())
    return false;
  // Extents that broadcast are another operator; groups that are merged have to be known.
  for (std::size_t i = 0; i < c.a.size(); ++i) {
    const std::size_t other = c.b.find(c.a[i]);
    if (other != std::string::npos && !((*a_shape)[i] == (*b_shape)[other])) return false;
  }
  const bool flat = c.batch.empty();  // rows of many axes need no merging before a matrix
  const auto inner = extent_of(*a_shape, c.a, c.inner), columns = extent_of(*b_shape, c.b, c.columns);
  const bool merges_rows = c.rows.size() > 1 && !flat;
  if ((c.inner.size() > 1 && !inner) || (c.columns.size() > 1 && !columns)) return false;
  if (merges_rows) {
    if (c.inner.size() > 1 || c.columns.size() > 1) return false;
    order_rows(c, *a_shape, *b_shape);
  }
  Builder builder(graph, id, node.origin);
  const std::string left = c.batch + c.rows + c.inner, right = c.batch + c.inner + c.columns;
  Expr x = permuted(builder, builder.wrap(a), places(c.a, left)),
       w = permuted(builder, builder.wrap(b), places(c.b, right));
  if (merges_rows) {
    const Expr y = product_of_merged_rows(builder, c, a, b, x, w);
    replace_value(graph, graph.node(id).outputs[0], permuted(builder, y, places(c.batch + c.rows + c.columns, c.out)),
                  "expand-einsum");
    return true;
  }
  const std::vector<std::int64_t> copied(c.batch.size() + c.rows.size(), 0);
  if (c.inner.size() > 1) {
    std::vector<std::int64_t> target = copied;
    target.push_back(*inner);
    x = builder.reshape(x, target);
  }
  if (c.inner.size() > 1 || c.columns.size() > 1) {
    std::vector<std::int64_t> target(c.batch.size(), 0);
    if (c.inner.size() > 1) {
      target.push_back(*inner);
      target.push_back(columns ? *columns : -1);
    } else {
      target.push_back(0);
      target.push_back(*columns);
    }
    w = builder.reshape(w, target);
  }
  Expr y = builder.matmul(x, w);
  if (c.columns.size() > 1) {
    std::vector<std::int64_t> target = copied;
    for (const char letter : c.columns) target.push_back((*shape_of(graph, b))[c.b.find(letter)].value());
    y = builder.reshape(y, target);
  }
  y = permuted(builder, y, places(c.batch + c.rows + c.columns, c.out));
  replace_value(graph, graph.node(id).outputs[0], y, "expand-einsum");
  return true;
}

int expand_einsums(Graph& graph, PassContext& context) {
  int expanded = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Einsum" || !expand_einsum(graph, id)) continue;
    context.rewritten(graph, "expand-einsum");
    ++expanded;
  }
  return expanded;
}

// --- Transposed products -----------------------------------------------------------------------------------

// (a b)^T is b^T a^T. Worth it where one of the two is transposed already, or constant.
Rule transposed_product() {
  const Pattern a = any("a"), b = any("b");
  const Pattern product = matmul(a, b);
  const Pattern root = op("Transpose", {product});
  return {"transposed-product", root,
          [=](Match& m) {
            const auto* perm = permutation_of(m.node(root));
            const std::size_t rank = perm != nullptr ? perm->size() : 0;
            const auto last = static_cast<std::int64_t>(rank) - 1;
            if (rank < 2 || (*perm)[rank - 2] != last || (*perm)[rank - 1] != last - 1) {
              return m.refuse("rows and columns do not change places");
            }
            if (m.rank(a) != last + 1 || m.rank(b) != last + 1) return m.refuse("the ranks differ");
            if (producer(m.graph(), m[a], "Softmax") != nullptr) return m.refuse("weights of attention come first");
            const auto turns = [&](const Pattern& x) {
              return is_constant(m.graph(), m[x]) || producer(m.graph(), m[x], "Transpose") != nullptr;
            };
            return turns(a) || turns(b) || m.refuse("neither operand is transposed");
          },
          [=](Builder& builder, const Match& m) {
            const std::vector<std::int64_t> perm = *permutation_of(m.node(root));
            return builder.matmul(builder.transpose(builder.wrap(m[b]), perm),
                                  builder.transpose(builder.wrap(m[a]), perm));
          }};
}

// a P^T of attention weights P as (P a^T)^T: weights come first.
Rule weights_first() {
  const Pattern a = any("a"), weights = any("weights");
  const Pattern turned = transpose_last_two(weights);
  return {"weights-first", matmul(a, turned),
          [=](Match& m) {
            if (m.rank(a) != m.rank(weights) || m.rank(a) < 2) return m.refuse("the ranks differ");
            return producer(m.graph(), m[weights], "Softmax") != nullptr || m.refuse("no Softmax gives the weights");
          },
          [=](Builder& b, const Match& m) {
            const std::vector<std::int64_t> perm = *permutation_of(m.node(turned));
            return b.transpose(b.matmul(b.wrap(m[weights]), b.transpose(b.wrap(m[a]), perm)), perm);
          }};
}

// --- Convolutions of one tap ----------------------------------------------------------------------------------

// Absent, or this in every place.
bool all_are(const AttributeReader& attributes, std::string_view name, std::int64_t wanted) {
  if (!attributes.has(name)) return true;
  const auto& values = attributes.integers(name);
  return std::all_of(values.begin(), values.end(), [&](std::int64_t v) { return v == wanted; });
}

// A convolution [B, C, L] of one tap is a product with its weights, of channels that lie last. So it is written where
// they do before or after it.
std::vector<Rule> one_tap_convolutions() {
  const auto accept = [](Match& m, const Pattern& convolution, const Pattern& weight) {
    const AttributeReader attributes = attributes_of(m.node(convolution));
    if (m.rank(weight) != 3 || !m.shape(weight)[2].is(1)) return m.refuse("the kernel has more taps than one");
    const std::int64_t groups = attributes.integer("group");
    if (groups != 1) return m.refuse(fmt::format("{} groups of channels are products of their own", groups));
    const bool plain = all_are(attributes, "strides", 1) && all_are(attributes, "pads", 0);
    return plain || m.refuse("the convolution leaves positions out or pads");
  };
  // Of channels that lie last.
  const auto product = [](Builder& b, const Match& m, Expr x, const Pattern& convolution, const Pattern& weight) {
    const std::vector<ValueId> inputs = m.node(convolution).inputs;
    const Expr y = b.matmul(x, b.transpose(b.squeeze(b.wrap(m[weight]), {2}), {1, 0}));
    return inputs.size() > 2 && inputs[2].valid() ? y + b.wrap(inputs[2]) : y;
  };
  const Pattern x = any("x"), weight = constant("weight"), turned = transpose(x, {0, 2, 1}).shareable();
  const Pattern of_turned = open_op("Conv", {turned, weight}), plain = open_op("Conv", {x, weight});
  return {
      {"convolution-of-one-tap", of_turned, [=](Match& m) { return accept(m, of_turned, weight); },
       [=](Builder& b, const Match& m) {
         return b.transpose(product(b, m, b.wrap(m[x]), of_turned, weight), {0, 2, 1});
       }},
      {"turned-convolution-of-one-tap", transpose(plain, {0, 2, 1}), [=](Match& m) { return accept(m, plain, weight); },
       [=](Builder& b, const Match& m) { return product(b, m, b.transpose(b.wrap(m[x]), {0, 2, 1}), plain, weight); }}};
}

// --- Flattened rows ------------------------------------------------------------------------------------------

// [-1, K] of x [..., K]
bool is_flattened(Match& m, const Pattern& x, const Pattern& flat) {
  if (m.rank(flat) != 2 || m.rank(x) < 3) return m.refuse("the rows are not flattened");
  const Dim& size = m.shape(flat)[1];
  return (size.is_constant() && !size.is(0) && m.shape(x).back() == size) || m.refuse("the columns are mixed");
}

Expr flatten_rows(Builder& b, Expr x) { return b.reshape(x, std::vector<std::int64_t>{-1, b.dim(x, -1).value()}); }

// The product is taken first, with all axes, and flattened then: the Reshape meets the one that undoes it.
std::vector<Rule> flattening_rules() {
  std::vector<Rule> rules;
  {
    const Pattern x = any("x"), weight = constant("weight");
    const Pattern flat = reshape(x).shareable();
    rules.push_back(
        {"product-before-flattening", matmul(flat, weight),
         [=](Match& m) {
           if (!is_flattened(m, x, flat)) return false;
           return (m.rank(weight) == 2 && !m.shape(weight)[1].is(0)) || m.refuse("the weight is no matrix");
         },
         [=](Builder& b, const Match& m) { return flatten_rows(b, b.matmul(b.wrap(m[x]), b.wrap(m[weight]))); }});
  }
  {
    const Pattern x = any("x"), bias = constant("bias");
    const Pattern flat = reshape(x);
    rules.push_back({"bias-before-flattening", flat + bias,
                     [=](Match& m) {
                       if (!is_flattened(m, x, flat)) return false;
                       const bool row = m.rank(bias) == 1 && m.shape(bias)[0] == m.shape(x).back();
                       return row || m.refuse("the bias is no row");
                     },
                     [=](Builder& b, const Match& m) { return flatten_rows(b, b.wrap(m[x]) + b.wrap(m[bias])); }});
  }
  return rules;
}

}  // namespace

int canonicalize_products(Graph& graph, PassContext& context) {
  int changed = expand_einsums(graph, context);
  changed += run_rules(graph, {transposed_product(), weights_first()}, context);
  changed += run_rules(graph, one_tap_convolutions(), context);
  return changed + run_rules(graph, flattening_rules(), context);
}

}  // namespace weft
