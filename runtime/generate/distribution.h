// Scores as probabilities, and drawing from them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace weft::runtime {

// In place: x - log(sum(exp(x))).
void log_softmax(std::span<float> x);

// exp(x) / sum(exp(x)).
std::vector<double> softmax(std::span<const float> x);

// Indices of the k largest, largest first, ties by lower index.
std::vector<std::size_t> top(std::span<const float> scores, std::size_t k);

// Philox 4x32-10 (Salmon, Moraes, Dror and Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011): four words that
// depend on key and counter alone.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::array<std::uint32_t, 4> counter);

// A number in (0, 1) for each purpose: `stream` and `row` say whose, `step` and `index` which.
double uniform(std::uint64_t seed, std::uint32_t stream, std::uint32_t row, std::uint32_t step, std::uint32_t index);

// The index that u in (0, 1) falls on when probabilities are laid end to end. Those of 0 are never drawn.
std::size_t draw(std::span<const double> probabilities, double u);

}  // namespace weft::runtime
