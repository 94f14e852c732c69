# Version and hash of everything that weft builds on: the one place to change them.
# weft_pin(<name> VERSION <version> DEBIAN <path below a Debian mirror> SHA256 <hash of that archive>
#          GIT <url> COMMIT <hash> | URL <url> URL_SHA256 <hash>)
macro(weft_pin name)
  cmake_parse_arguments(pin_${name} "" "VERSION;GIT;COMMIT;URL;URL_SHA256;DEBIAN;SHA256" "" ${ARGN})
endmacro()

# Linked into weft, built by cmake/third_party. XNNPACK and its three helpers have no releases.
set(WEFT_LINKED xnnpack pthreadpool cpuinfo fxdiv highway fmt)
weft_pin(xnnpack VERSION 20241108
  GIT https://github.com/google/XNNPACK.git COMMIT 4ea82e595b36106653175dcb04b2aa532660d0d8
  DEBIAN pool/main/x/xnnpack/xnnpack_0.0~git20241108.4ea82e5.orig.tar.xz
  SHA256 90bde2caef0f880f627bab0dc805a86c4b8070cd98e3243db3046ab3f3be1a99)
weft_pin(pthreadpool VERSION 20240616 # later ones put their threads to sleep between two short regions
  GIT https://github.com/google/pthreadpool.git COMMIT 560c60d342a76076f0557a3946924c6478470044
  DEBIAN pool/main/p/pthreadpool/pthreadpool_0.0~git20240616.560c60d.orig.tar.xz
  SHA256 4cc3cbd933b28131d2a34edc54f76af9fb41bc490af5eae1a5bd3cd07ea90708)
weft_pin(cpuinfo VERSION 20250905
  GIT https://github.com/pytorch/cpuinfo.git COMMIT 877328f188a3c7d1fa855871a278eb48d530c4c0
  DEBIAN pool/main/c/cpuinfo/cpuinfo_0.0~git20250905.877328f.orig.tar.xz
  SHA256 557ca404a3836b9f335a3a06b65ff9fe9dbaaefab7fb5c0185f53d9f33615a10)
weft_pin(fxdiv VERSION 20200417
  GIT https://github.com/Maratyszcza/FXdiv.git COMMIT b408327ac2a15ec3e43352421954f5b1967701d1
  DEBIAN pool/main/f/fxdiv/fxdiv_0.0~git20200417.b408327.orig.tar.xz
  SHA256 7953482badaf4cb34026c3487c257b8e4ab2df061c019bd6fabbbc12ad52c44b)
weft_pin(highway VERSION 1.2.0
  GIT https://github.com/google/highway.git COMMIT 457c891775a7397bdb0376bb1031e6e027af1c48
  DEBIAN pool/main/h/highway/highway_1.2.0.orig.tar.gz
  SHA256 7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)
weft_pin(fmt VERSION 11.1.1
  GIT https://github.com/fmtlib/fmt.git COMMIT e3ddede6c4ee818825c4e5a6dfa1d384860c27d9
  DEBIAN pool/main/f/fmtlib/fmtlib_11.1.1+ds1.orig.tar.xz
  SHA256 7d8550c9c5fdc4d03d50b55e0697176a19d3f34a3070580fb54e282da1aca555)

# Used by the command and the tests alone, where the system does not offer them.
weft_pin(cli11 VERSION 2.1.2
  URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.1.2.tar.gz
  URL_SHA256 26291377e892ba0e5b4972cdfd4a2ab3bf53af8dac1f4ea8fe0d1376b625c8cb
  DEBIAN pool/main/c/cli11/cli11_2.1.2+ds.orig.tar.xz
  SHA256 8143d20b688e98ccce8e24562d3b68e5f47c12e896c42c7ca8553dbde5bed55d)
weft_pin(json VERSION 3.11.2
  GIT https://github.com/nlohmann/json.git COMMIT bc889afb4c5bf1c0d8ee29ef35eaaf4c8bef8a5d
  DEBIAN pool/main/n/nlohmann-json3/nlohmann-json3_3.11.2.orig.tar.gz
  SHA256 d69f9deb6a75e2580465c6c4c5111b89c4dc2fa94e3a85fcd2ffcd9a143d9273)
weft_pin(libzip VERSION 1.7.3
  URL https://libzip.org/download/libzip-1.7.3.tar.xz
  URL_SHA256 a60473ffdb7b4260c08bfa19c2ccea0438edac11193c3afbbb1f17fbcf6c6132
  DEBIAN pool/main/libz/libzip/libzip_1.7.3.orig.tar.xz
  SHA256 a60473ffdb7b4260c08bfa19c2ccea0438edac11193c3afbbb1f17fbcf6c6132)
weft_pin(googletest VERSION 1.12.1
  GIT https://github.com/google/googletest.git COMMIT 58d77fa8070e8cec2dc1ed015d66b454c8d78850
  DEBIAN pool/main/g/googletest/googletest_1.12.1.orig.tar.gz
  SHA256 81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2)
