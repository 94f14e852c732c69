#include "passes/size_builder.h"

#include "passes/node_util.h"

namespace weft {

SizeBuilder::SizeBuilder(Graph& graph, const std::set<ValueId>& but) : b_(graph, graph.nodes().front()) {
  for (const ValueId input : graph.inputs()) {
    if (!but.contains(input)) add_sources(input);
  }
  for (const State& state : graph.states()) add_sources(state.current);
}

void SizeBuilder::add_sources(ValueId input) {
  const Shape* shape = shape_of(b_.graph(), input);
  for (std::size_t axis = 0; shape != nullptr && axis < shape->size(); ++axis) {
    if (const auto name = (*shape)[axis].symbol_name()) sources_.try_emplace(*name, input, axis);
  }
}

ValueId SizeBuilder::size(const Dim& dim) {
  const auto [entry, is_new] = known_.try_emplace(dim);
  if (is_new) entry->second = build(dim);
  return entry->second;
}

ValueId SizeBuilder::sizes(const std::vector<Dim>& dims, bool is_scalar) {
  std::vector<ValueId> parts;
  for (const Dim& dim : dims) {
    parts.push_back(size(dim));
    if (!parts.back().valid()) return {};
  }
  if (parts.empty() || (is_scalar && parts.size() != 1)) return {};
  const std::pair key{parts, is_scalar};
  const auto found = joined_.find(key);
  if (found != joined_.end()) return found->second;
  ValueId result = parts.size() == 1 ? parts.front() : b_.concat(parts, 0).id();
  if (is_scalar) result = b_.squeeze(b_.wrap(result), {0});
  return joined_[key] = result;
}

ValueId SizeBuilder::build(const Dim& dim) {
  if (dim.is_constant()) return b_.ints({dim.value()});
  if (const auto name = dim.symbol_name()) {
    const auto source = sources_.find(*name);
    if (source == sources_.end()) return {};
    const auto& [input, axis] = source->second;
    const auto start = static_cast<std::int64_t>(axis);
    return b_.make("Shape", {input}, {{"start", start}, {"end", start + 1}});
  }
  try {
    return linear(dim);
  } catch (const Error&) {
    return {};  // a quotient by what is 0 there: not linear
  }
}

// c0 + c1 s1 + c2 s2 ..., found by setting symbols to 0 and 1 and checked by putting it together again.
ValueId SizeBuilder::linear(const Dim& dim) {
  std::map<std::string, Dim, std::less<>> zeros;
  for (const std::string& name : dim.symbols()) zeros[name] = Dim(0);
  const Dim rest = dim.substitute(zeros);
  if (!rest.is_constant()) return {};
  std::vector<std::pair<std::string, std::int64_t>> terms;
  Dim sum = rest;
  for (const std::string& name : dim.symbols()) {
    auto one = zeros;
    one[name] = Dim(1);
    const Dim value = dim.substitute(one);
    if (!value.is_constant()) return {};
    terms.emplace_back(name, value.value() - rest.value());
    sum = sum + Dim(terms.back().second) * Dim::symbol(name);
  }
  if (!(sum == dim)) return {};
  Expr result;
  for (const auto& [name, factor] : terms) {
    const ValueId symbol = size(Dim::symbol(name));
    if (!symbol.valid()) return {};
    const Expr term = factor == 1 ? b_.wrap(symbol) : b_.wrap(symbol) * static_cast<double>(factor);
    result = result ? result + term : term;
  }
  return rest.is(0) ? result : result + static_cast<double>(rest.value());
}

}  // namespace weft
