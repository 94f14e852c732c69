#include "passes/sites.h"

#include <algorithm>
#include <set>

#include "passes/find_sites.h"
#include "passes/node_util.h"

namespace weft {
namespace {

// While passes run, the nodes of a site carry marks in their origins: "\x1f" and a number. No name of a file that
// reads as text holds this byte, and nobody sees them: they go before optimize_and_explain() returns.
constexpr char kMark = '\x1f';

std::string mark(std::size_t number) { return kMark + std::to_string(number); }
bool is_mark(const std::string& name) { return !name.empty() && name.front() == kMark; }

bool has_mark(const Origin& origin, const std::string& wanted) {
  return std::find(origin.nodes.begin(), origin.nodes.end(), wanted) != origin.nodes.end();
}

struct MarkedSite {
  Site site;
  std::vector<std::string> marks;  // one per part
  std::string core;                // kProjections: the mark of the attention they feed
};

struct Place {
  const Graph* graph;
  NodeId node;
};

// Every node of the graph and its subgraphs that stands for a marked node, by mark.
using Places = std::map<std::string, std::vector<Place>>;

void find_places(const Graph& graph, Places& places) {
  for (const NodeId id : graph.nodes()) {
    for (const std::string& name : graph.node(id).origin.nodes) {
      if (is_mark(name)) places[name].push_back({&graph, id});
    }
    for (const Subgraph& subgraph : graph.node(id).subgraphs) find_places(*subgraph.graph, places);
  }
}

void erase_marks(Origin& origin) { std::erase_if(origin.nodes, is_mark); }

void erase_marks(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    Node& node = graph.node(id);
    erase_marks(node.origin);
    for (Subgraph& subgraph : node.subgraphs) erase_marks(*subgraph.graph);
  }
}

std::string name_of(const Graph& graph, const Node& node) {
  if (!node.origin.nodes.empty() && !node.origin.nodes.front().empty()) return node.origin.nodes.front();
  const ValueId made = node.outputs.empty() ? ValueId() : node.outputs[0];
  return made.valid() ? fmt::format("{} of %{}", node.op, graph.value(made).name) : node.op;
}

class Marker {
 public:
  std::vector<MarkedSite> run(Graph& graph) {
    mark_graph(graph, "");
    std::stable_sort(sites_.begin(), sites_.end(),
                     [](const MarkedSite& a, const MarkedSite& b) { return a.site.kind < b.site.kind; });
    return std::move(sites_);
  }

 private:
  std::string mark_node(Graph& graph, NodeId id) {
    Origin& origin = graph.node(id).origin;
    const auto known = std::find_if(origin.nodes.begin(), origin.nodes.end(), is_mark);
    if (known != origin.nodes.end()) return *known;
    // A mark may not be taken for the node's name.
    if (origin.nodes.empty()) origin.nodes.push_back(name_of(graph, graph.node(id)));
    return origin.nodes.emplace_back(mark(next_++));
  }

  void mark_graph(Graph& graph, const std::string& scope) {
    for (const FoundSite& found : find_sites(graph)) {
      const Node& node = graph.node(found.at);
      MarkedSite marked;
      marked.site.kind = found.kind;
      marked.site.node = name_of(graph, node);
      if (!node.origin.sources.empty()) marked.site.source = node.origin.sources.front();
      marked.site.scope = scope;
      if (found.parts.empty()) marked.marks.push_back(mark_node(graph, found.at));
      for (const NodeId part : found.parts) marked.marks.push_back(mark_node(graph, part));
      if (found.core.valid()) marked.core = mark_node(graph, found.core);
      sites_.push_back(std::move(marked));
    }
    for (const NodeId id : graph.nodes()) {
      Node& node = graph.node(id);
      for (Subgraph& subgraph : node.subgraphs) {
        const std::string here = fmt::format("{} of {}", subgraph.name, report_name(node));
        mark_graph(*subgraph.graph, scope.empty() ? here : scope + " in " + here);
      }
    }
  }

  std::size_t next_ = 0;
  std::vector<MarkedSite> sites_;
};

bool is_fused_operator(SiteKind kind, const std::string& op) {
  if (kind == SiteKind::kNorm) return op.ends_with("Normalization");
  return op == (kind == SiteKind::kRotary ? "Rotary" : "Attention");
}

// The deepest miss, among rules of fusing passes, of a match that had taken one of the marks in.
void find_near_miss(const PassReport& report, const MarkedSite& marked, Site& site) {
  std::vector<std::string> marks = marked.marks;
  if (!marked.core.empty()) marks.push_back(marked.core);
  for (const RuleReport& rule : report.rules) {
    const bool projections = rule.name.find("qkv") != std::string::npos;
    if (!rule.pass.starts_with("fuse-") || projections != (site.kind == SiteKind::kProjections)) continue;
    for (const NearMiss& miss : rule.near_misses) {
      const bool here = std::any_of(marks.begin(), marks.end(),
                                    [&](const std::string& name) { return has_mark(miss.matched, name); });
      if (!here || (site.near_miss && site.near_miss->depth >= miss.depth)) continue;
      site.rule = rule.name;
      site.near_miss = miss;
    }
  }
}

// Of an Attention that still reads a mask: its shape, and why no attribute says what it means.
std::string mask_left(const PassReport& report, const MarkedSite& marked, const Place& place) {
  constexpr std::size_t kMask = 3;
  const Node& node = place.graph->node(place.node);
  if (node.op != "Attention" || node.inputs.size() <= kMask || !node.inputs[kMask].valid()) return {};
  std::string text = fmt::format("its mask stays a tensor {}", to_string(place.graph->value(node.inputs[kMask]).type));
  for (const RuleReport& rule : report.rules) {
    if (rule.pass != "absorb-masks") continue;
    for (const NearMiss& miss : rule.near_misses) {
      const bool here = std::any_of(marked.marks.begin(), marked.marks.end(),
                                    [&](const std::string& name) { return has_mark(miss.matched, name); });
      if (here) return text + ": " + miss.reason;
    }
  }
  return text;
}

// One operator that stands for all of them.
const Place* common_place(const Places& places, const MarkedSite& marked) {
  const auto first = places.find(marked.marks.front());
  if (first == places.end()) return nullptr;
  for (const Place& place : first->second) {
    const Node& node = place.graph->node(place.node);
    const bool fits = marked.site.kind == SiteKind::kProjections ? is_projection_operator(node.op)
                                                                 : is_fused_operator(marked.site.kind, node.op);
    const bool all = std::all_of(marked.marks.begin(), marked.marks.end(),
                                 [&](const std::string& name) { return has_mark(node.origin, name); });
    if (fits && all) return &place;
  }
  return nullptr;
}

bool is_attention(const Places& places, const std::string& core) {
  const auto found = places.find(core);
  return found != places.end() && std::any_of(found->second.begin(), found->second.end(), [](const Place& place) {
           return place.graph->node(place.node).op == "Attention";
         });
}

// Of a place where no rule began to fit: what reads what it makes.
std::string readers(const Places& places, const MarkedSite& marked) {
  const auto found = places.find(marked.marks.front());
  if (found == places.end() || found->second.empty()) return {};
  const auto& [graph, id] = found->second.front();
  std::set<std::string> names;
  for (const Use& use : graph->value(graph->node(id).outputs[0]).uses) {
    const Node& reader = graph->node(use.node);
    names.insert(fmt::format("{} ({})", report_name(reader), reader.op));
  }
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? text : fmt::format(": its {} is read by {}", graph->node(id).op, text);
}

void settle(const MarkedSite& marked, const Places& places, const PassReport& report, Site& site) {
  const bool left = std::any_of(marked.marks.begin(), marked.marks.end(),
                                [&](const std::string& name) { return places.contains(name); });
  if (const Place* place = common_place(places, marked)) {
    site.end = SiteEnd::kFused;
    site.into = node_text(*place->graph, place->node);
    site.reason = mask_left(report, marked, *place);
  } else if (!left) {
    site.end = SiteEnd::kRemoved;
  } else if (site.kind == SiteKind::kSoftmax) {
    site.end = SiteEnd::kPlain;
  } else {
    site.end = SiteEnd::kNotFused;
    find_near_miss(report, marked, site);
    if (!site.near_miss) {
      const bool waits = !marked.core.empty() && !is_attention(places, marked.core);
      site.reason = waits ? "the attention they feed is not fused" : "no rule began to fit" + readers(places, marked);
    }
  }
}

}  // namespace

std::string_view to_string(SiteKind kind) {
  switch (kind) {
    case SiteKind::kAttention: return "attention";
    case SiteKind::kSoftmax: return "softmax";
    case SiteKind::kNorm: return "norms";
    case SiteKind::kRotary: return "rotary";
    case SiteKind::kProjections: return "qkv";
    case SiteKind::kCache: return "caches";
  }
  return "";
}

Explanation optimize_and_explain(Graph& graph, const PassOptions& options) {
  const std::vector<MarkedSite> marked = Marker().run(graph);
  PassOptions all_misses = options;
  all_misses.kept_misses = std::max<std::size_t>(options.kept_misses, 4 * marked.size());
  Explanation explanation;
  explanation.report = optimize(graph, all_misses);
  Places places;
  find_places(graph, places);
  for (const MarkedSite& one : marked) {
    Site site = one.site;
    settle(one, places, explanation.report, site);
    explanation.sites.push_back(std::move(site));
  }
  erase_marks(graph);
  for (Site& site : explanation.sites) {
    if (site.near_miss) erase_marks(site.near_miss->matched);
  }
  for (RuleReport& rule : explanation.report.rules) {
    if (rule.near_misses.size() > options.kept_misses) rule.near_misses.resize(options.kept_misses);
    for (NearMiss& miss : rule.near_misses) erase_marks(miss.matched);
  }
  return explanation;
}

SiteCount count_sites(const Explanation& explanation, SiteKind kind) {
  SiteCount count;
  for (const Site& site : explanation.sites) {
    if (site.kind != kind || site.end == SiteEnd::kRemoved) continue;
    ++count.sites;
    count.fused += site.end == SiteEnd::kFused;
    count.not_fused += site.end == SiteEnd::kNotFused;
  }
  return count;
}

}  // namespace weft
