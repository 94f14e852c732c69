// Loads a model with the installed headers and libraries, and names its inputs.
#include <cstdio>

#include "graph/error.h"
#include "runtime/model.h"
#include "runtime/session.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const auto model = weft::runtime::Model::load(argv[1]);
    const weft::runtime::Session session(model);
    const weft::Graph& graph = session.model().graph();
    for (const weft::ValueId input : graph.inputs()) {
      std::printf("input %s\n", graph.value(input).name.c_str());
    }
    return graph.inputs().empty() || graph.outputs().empty();
  } catch (const weft::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
