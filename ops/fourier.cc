#include "ops/fourier.h"

#include <bit>
#include <numbers>

namespace weft {
namespace {

constexpr std::int64_t kLargestRadix = 31;

std::int64_t smallest_factor(std::int64_t n) {
  for (std::int64_t p = 2; p * p <= n; ++p) {
    if (n % p == 0) return p;
  }
  return n;
}

// Without the check for infinities that the operator of the standard library makes.
std::complex<double> product(const std::complex<double>& a, const std::complex<double>& b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

}  // namespace

FourierTransform::FourierTransform(std::int64_t length, bool inverse)
    : length_(length), turns_(static_cast<std::size_t>(length)) {
  const double circle = (inverse ? 2 : -2) * std::numbers::pi;
  for (std::int64_t i = 0; i < length; ++i) {
    turns_[static_cast<std::size_t>(i)] =
        std::polar(1.0, circle * static_cast<double>(i) / static_cast<double>(length));
  }
  std::int64_t rest = length;
  for (std::int64_t p = smallest_factor(rest); p <= kLargestRadix && rest > 1; p = smallest_factor(rest)) rest /= p;
  if (rest == 1) return;
  rest_ = rest;
  const auto n = static_cast<std::size_t>(rest_), around = std::bit_ceil(2 * n - 1);
  chirp_.resize(n);
  circle_.assign(around, 0);
  for (std::int64_t i = 0; i < rest_; ++i) {  // i * i / 2 turns of 1 / rest
    const double half_turns = static_cast<double>(static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(i) %
                                                  static_cast<std::uint64_t>(2 * rest_));
    const auto at = static_cast<std::size_t>(i);
    chirp_[at] = std::polar(1.0, circle / 2 * half_turns / static_cast<double>(rest_));
    circle_[at] = std::conj(chirp_[at]);
    if (i > 0) circle_[around - at] = std::conj(chirp_[at]);
  }
  forward_ = std::make_shared<FourierTransform>(static_cast<std::int64_t>(around), false);
  backward_ = std::make_shared<FourierTransform>(static_cast<std::int64_t>(around), true);
  (*forward_)(circle_);
}

void FourierTransform::operator()(std::vector<std::complex<double>>& line) const {
  const std::vector<Complex> x = line;
  run(x.data(), 1, length_, line.data());
}

// y = transform of the n elements x[0], x[stride], ...; n * stride divides length_.
void FourierTransform::run(const Complex* x, std::int64_t stride, std::int64_t n, Complex* y) const {
  if (n == 1) {
    y[0] = x[0];
    return;
  }
  if (n == rest_) return convolve(x, stride, y);
  const std::int64_t radix = smallest_factor(n), part = n / radix;
  std::vector<Complex> pieces(static_cast<std::size_t>(n));
  for (std::int64_t r = 0; r < radix; ++r) run(x + r * stride, stride * radix, part, pieces.data() + r * part);
  const std::int64_t unit = length_ / n;
  for (std::int64_t k = 0; k < n; ++k) {
    Complex total;
    for (std::int64_t r = 0; r < radix; ++r) {
      total += product(pieces[static_cast<std::size_t>(r * part + k % part)],
                       turns_[static_cast<std::size_t>(r * k % n * unit)]);
    }
    y[k] = total;
  }
}

// Bluestein: n k = (n^2 + k^2 - (k - n)^2) / 2 makes the transform a convolution with a chirp.
void FourierTransform::convolve(const Complex* x, std::int64_t stride, Complex* y) const {
  std::vector<Complex> line(circle_.size());
  for (std::int64_t i = 0; i < rest_; ++i) {
    line[static_cast<std::size_t>(i)] = product(x[i * stride], chirp_[static_cast<std::size_t>(i)]);
  }
  (*forward_)(line);
  for (std::size_t i = 0; i < line.size(); ++i) line[i] = product(line[i], circle_[i]);
  (*backward_)(line);
  const double factor = 1.0 / static_cast<double>(line.size());
  for (std::int64_t k = 0; k < rest_; ++k) {
    y[k] = product(line[static_cast<std::size_t>(k)], chirp_[static_cast<std::size_t>(k)]) * factor;
  }
}

}  // namespace weft
