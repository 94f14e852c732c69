#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph/text.h"
#include "graph/text_common.h"

namespace weft {
namespace {

constexpr int kMaxDepth = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Graph parse() {
    Graph graph = parse_body();
    skip();
    if (at_ != text_.size()) error("the end of the text");
    return graph;
  }

 private:
  struct PendingState {
    std::string name, next;
  };

  // --- Characters ------------------------------------------------------------------------------------

  [[noreturn]] void error(std::string_view wanted) const {
    const std::string_view before = text_.substr(0, std::min(at_, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const std::size_t start = before.rfind('\n');
    const std::size_t column = start == std::string_view::npos ? before.size() + 1 : before.size() - start;
    fail(ErrorCode::kInvalidArgument, "{}:{}: {} wanted", line, column, wanted);
  }

  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }
  bool peek(std::string_view token) {
    skip();
    return text_.substr(at_, token.size()) == token;
  }
  bool accept(std::string_view token) {
    if (!peek(token)) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) error(fmt::format("\"{}\"", token));
  }
  // A keyword does not go on.
  bool accept_word(std::string_view word) {
    skip();
    if (text_.substr(at_, word.size()) != word) return false;
    const std::size_t end = at_ + word.size();
    if (end < text_.size() && is_name_char(text_[end])) return false;
    at_ = end;
    return true;
  }

  std::string word() {
    skip();
    const std::size_t start = at_;
    while (at_ < text_.size() && is_name_char(text_[at_])) ++at_;
    if (at_ == start) error("a name");
    return std::string(text_.substr(start, at_ - start));
  }

  std::string quoted() {
    expect("\"");
    std::string result;
    for (;; ++at_) {
      if (at_ >= text_.size()) error("a closing quote");
      if (text_[at_] == '"') break;
      if (text_[at_] != '\\') {
        result += text_[at_];
        continue;
      }
      if (++at_ >= text_.size()) error("a closing quote");
      if (text_[at_] != 'x') {
        result += text_[at_];
        continue;
      }
      unsigned value = 0;
      const char* first = text_.data() + at_ + 1;
      if (at_ + 2 >= text_.size() || std::from_chars(first, first + 2, value, 16).ptr != first + 2)
        error("two hexadecimal digits");
      result += static_cast<char>(value);
      at_ += 2;
    }
    ++at_;
    return result;
  }

  std::string value_name() {
    expect("%");
    return at_ < text_.size() && text_[at_] == '"' ? quoted() : word();
  }

  // --- Types and tensors -----------------------------------------------------------------------------

  TensorType type() {
    const std::string name = word();
    const std::optional<DType> dtype = parse_dtype(name);
    if (!dtype) error("an element type");
    TensorType result{*dtype, Shape{}};
    if (is_container(*dtype)) {
      expect("<");
      const std::optional<DType> element = parse_dtype(word());
      if (!element) error("an element type");
      result.element = *element;
      expect(">");
    }
    expect("[");
    if (accept("*")) {
      expect("]");
      result.shape.reset();
      return result;
    }
    while (!accept("]")) {
      if (!result.shape->empty()) expect(",");
      result.shape->push_back(dim());
    }
    return result;
  }

  // The text of a dim ends at a comma or bracket outside parentheses and quotes.
  Dim dim() {
    skip();
    const std::size_t start = at_;
    int depth = 0;
    for (bool quote = false; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (quote) {
        if (c == '\\')
          ++at_;
        else if (c == '"')
          quote = false;
        continue;
      }
      if (c == '"') quote = true;
      if (c == '(') ++depth;
      if (c == ')') --depth;
      if (depth == 0 && (c == ',' || c == ']')) break;
    }
    at_ = std::min(at_, text_.size());
    return Dim::parse(text_.substr(start, at_ - start));
  }

  // A number's characters: digits, signs, inf, nan.
  std::string_view number_text() {
    skip();
    const std::size_t start = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-' ||
                                  text_[at_] == '+' || text_[at_] == '.'))
      ++at_;
    if (at_ == start) error("a number");
    return text_.substr(start, at_ - start);
  }

  template <class T>
  T number() {
    const std::string_view text = number_text();
    if constexpr (std::is_floating_point_v<T>) {
      if (text == "nan") return std::numeric_limits<T>::quiet_NaN();
      if (text == "-nan") return -std::numeric_limits<T>::quiet_NaN();
      if (text == "inf") return std::numeric_limits<T>::infinity();
      if (text == "-inf") return -std::numeric_limits<T>::infinity();
    }
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size()) {
      at_ -= text.size();
      error("a number of this type");
    }
    return value;
  }

  Tensor tensor(const TensorType& type) {
    if (!type.shape || !is_static(*type.shape)) error("a static shape");
    const Extents shape = *evaluate(*type.shape, {});
    if (accept_word("base64")) return from_base64(type.dtype, shape);
    if (is_narrow(type.dtype) || is_container(type.dtype)) error("base64");
    if (peek("...")) error("the contents, which were left out when this was printed,");
    // Each element takes two characters at least: the text bounds what is allocated.
    if (element_count(shape) > static_cast<std::int64_t>(text_.size() - at_)) error("more elements");
    Tensor result = Tensor::uninitialized(type.dtype, shape);
    expect("[");
    visit_dtype(type.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      bool first = true;
      for (T& x : result.mutable_data<T>()) {
        if (!first) expect(",");
        first = false;
        if constexpr (std::is_same_v<T, std::string>)
          x = quoted();
        else if constexpr (std::is_same_v<T, bool>)
          x = boolean();
        else if constexpr (std::is_arithmetic_v<T>)
          x = number<T>();
        else
          x = T(number<float>());
      }
    });
    expect("]");
    return result;
  }

  bool boolean() {
    if (accept_word("true")) return true;
    if (accept_word("false")) return false;
    error("true or false");
  }

  Tensor from_base64(DType dtype, const Extents& shape) {
    std::string bytes;
    unsigned block = 0;
    int bits = 0;
    for (const char c : quoted()) {
      if (c == '=') break;
      const std::size_t digit = kBase64.find(c);
      if (digit == std::string_view::npos) error("base64");
      block = block << 6 | static_cast<unsigned>(digit);
      bits += 6;
      if (bits >= 8) bytes += static_cast<char>(block >> (bits -= 8) & 0xff);
    }
    if (is_object(dtype) || static_cast<std::uint64_t>(element_count(shape)) != bytes.size() / element_size(dtype) ||
        bytes.size() % element_size(dtype) != 0) {
      error("as many bytes as the type needs");
    }
    Tensor result = Tensor::uninitialized(dtype, shape);
    if (!bytes.empty()) std::memcpy(result.mutable_bytes().data(), bytes.data(), bytes.size());
    return result;
  }

  // --- Attributes ------------------------------------------------------------------------------------

  Attribute attribute() {
    skip();
    if (peek("\"")) return quoted();
    if (accept_word("type")) {
      const std::optional<DType> dtype = parse_dtype(word());
      if (!dtype) error("an element type");
      return *dtype;
    }
    if (accept_word("tensor")) {
      const TensorType contents = type();
      expect("=");
      return tensor(contents);
    }
    if (accept_word("ints")) return empty_list<std::int64_t>();
    if (accept_word("floats")) return empty_list<double>();
    if (accept_word("strings")) return empty_list<std::string>();
    if (accept("[")) return list();
    return is_float_next() ? Attribute(number<double>()) : Attribute(number<std::int64_t>());
  }

  template <class T>
  Attribute empty_list() {
    expect("[");
    expect("]");
    return std::vector<T>();
  }

  bool is_float_next() {
    const std::size_t start = at_;
    const std::string_view text = number_text();
    at_ = start;
    skip();
    return text.find_first_of(".enif") != std::string_view::npos;
  }

  Attribute list() {
    if (peek("\"")) return list_of<std::string>([&] { return quoted(); });
    skip();
    if (is_float_next()) return list_of<double>([&] { return number<double>(); });
    return list_of<std::int64_t>([&] { return number<std::int64_t>(); });
  }

  template <class T, class Read>
  std::vector<T> list_of(const Read& read) {
    std::vector<T> values = {read()};
    while (!accept("]")) {
      expect(",");
      values.push_back(read());
    }
    return values;
  }

  // --- Graphs ----------------------------------------------------------------------------------------

  static ValueId find(const Graph& graph, const std::string& name) {
    const auto found = graph.find_value(name);
    if (!found) fail(ErrorCode::kInvalidArgument, "value \"{}\" is not defined", name);
    return *found;
  }

  void check_new(const Graph& graph, const std::string& name) const {
    if (graph.find_value(name)) error(fmt::format("a new name instead of \"{}\"", name));
  }

  Graph parse_body() {
    if (++depth_ > kMaxDepth) error("less nesting");
    if (!accept_word("graph")) error("\"graph\"");
    Graph graph(quoted());
    expect("(");
    for (bool first = true; !accept(")"); first = false) {
      if (!first) expect(",");
      const std::string name = value_name();
      check_new(graph, name);
      expect(":");
      const ValueId id = graph.add_input(name, type());
      if (accept("=")) graph.value(id).tensor = tensor(graph.value(id).type);
    }
    expect("->");
    expect("(");
    std::vector<std::pair<std::string, std::string>> outputs;
    for (bool first = true; !accept(")"); first = false) {
      if (!first) expect(",");
      std::string name = quoted();
      expect("=");
      outputs.emplace_back(std::move(name), value_name());
    }
    expect("{");
    std::vector<PendingState> states;
    while (!accept("}")) statement(graph, states);
    for (const auto& [name, value] : outputs) graph.add_output(name, find(graph, value));
    for (const PendingState& state : states) graph.set_state_next(state.name, find(graph, state.next));
    --depth_;
    return graph;
  }

  void statement(Graph& graph, std::vector<PendingState>& states) {
    if (accept_word("meta")) {
      const std::string key = quoted();
      expect("=");
      graph.metadata[key] = quoted();
    } else if (accept_word("state")) {
      const std::string name = quoted();
      expect(":");
      const std::string current = value_name();
      check_new(graph, current);
      expect(":");
      const ValueId id = graph.add_state(name, type());
      graph.rename_value(id, current);
      expect("->");
      states.push_back({name, value_name()});
    } else if (accept_word("const")) {
      const std::string name = value_name();
      check_new(graph, name);
      expect(":");
      const TensorType declared = type();
      expect("=");
      graph.add_constant(tensor(declared), name);
    } else {
      node(graph);
    }
  }

  void node(Graph& graph) {
    std::vector<OutputSpec> outputs;
    do {
      OutputSpec output;
      if (accept("_")) {
        output.absent = true;
      } else {
        output.name = value_name();
        check_new(graph, output.name);
        expect(":");
        output.type = type();
      }
      outputs.push_back(std::move(output));
    } while (accept(","));
    expect("=");
    NodeSpec spec;
    spec.op = word();
    expect("(");
    for (bool first = true; !accept(")"); first = false) {
      if (!first) expect(",");
      spec.inputs.push_back(accept("_") ? ValueId() : find(graph, value_name()));
    }
    if (accept("{")) {
      for (bool first = true; !accept("}"); first = false) {
        if (!first) expect(",");
        std::string name = word();
        expect("=");
        spec.attributes.insert_or_assign(std::move(name), attribute());
      }
    }
    while (peek("\"")) {
      std::string name = quoted();
      spec.subgraphs.push_back({std::move(name), std::make_unique<Graph>(parse_body())});
    }
    if (accept("#")) {
      while (peek("\"")) spec.origin.nodes.push_back(quoted());
      while (accept("@")) spec.origin.sources.push_back(quoted());
    }
    graph.add_node(std::move(spec), outputs);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Graph parse_graph(std::string_view text) {
  Graph graph = Parser(text).parse();
  verify(graph);
  return graph;
}

}  // namespace weft
