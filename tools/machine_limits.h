// What this machine can do at most.
#pragma once

namespace weft::tools {

struct MachineLimits {
  double gflops = 0;  // f32 multiply-adds of all threads (each counts twice), 10^9 a second; 0: unknown
  double gbytes = 0;  // memory that all threads read together, beyond the caches, 10^9 bytes a second
};

// Measured with so many threads (about two seconds) and kept in the user's cache folder ($XDG_CACHE_HOME/weft, else
// ~/.cache/weft), a file a processor model and number of threads; measured again where that cannot be written.
// remeasure: whatever is kept.
MachineLimits machine_limits(int threads, bool remeasure = false);

}  // namespace weft::tools
