// Discrete Fourier transforms of any length.
#pragma once

#include <complex>
#include <cstdint>
#include <memory>
#include <vector>

namespace weft {

// y[k] = sum over n of x[n] exp(-2 pi i n k / length), or with the sign turned for the inverse, without a factor. Time
// grows as length * log(length): mixed radix for small prime factors, and Bluestein's convolution ("A linear filtering
// approach to the computation of discrete Fourier transform", 1970) for what is left.
class FourierTransform {
 public:
  FourierTransform(std::int64_t length, bool inverse);             // length >= 1
  void operator()(std::vector<std::complex<double>>& line) const;  // in place; of `length` elements

 private:
  using Complex = std::complex<double>;
  void run(const Complex* x, std::int64_t stride, std::int64_t n, Complex* y) const;
  void convolve(const Complex* x, std::int64_t stride, Complex* y) const;

  std::int64_t length_;
  std::vector<Complex> turns_;  // exp(-+2 pi i n / length)
  // The factor that is left without small primes, or 0: its chirp, and the transform of the chirp's conjugate on a
  // circle of two to a power.
  std::int64_t rest_ = 0;
  std::vector<Complex> chirp_, circle_;
  std::shared_ptr<const FourierTransform> forward_, backward_;  // on the circle
};

}  // namespace weft
