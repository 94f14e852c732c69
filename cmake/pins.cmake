# Version and hash of every source that weft builds itself. Read by dependencies.cmake (to fetch and to key the cache).
# weft_pin(<name> GIT <url> COMMIT <hash> DEBIAN <path below a Debian mirror> SHA256 <hash of that archive>)
set(WEFT_PINNED "")
macro(weft_pin name)
  cmake_parse_arguments(pin_${name} "" "GIT;COMMIT;DEBIAN;SHA256" "" ${ARGN})
  list(APPEND WEFT_PINNED ${name})
endmacro()

weft_pin(xnnpack
  GIT https://github.com/google/XNNPACK.git COMMIT 4ea82e595b36106653175dcb04b2aa532660d0d8
  DEBIAN pool/main/x/xnnpack/xnnpack_0.0~git20241108.4ea82e5.orig.tar.xz
  SHA256 90bde2caef0f880f627bab0dc805a86c4b8070cd98e3243db3046ab3f3be1a99)
weft_pin(pthreadpool
  GIT https://github.com/google/pthreadpool.git COMMIT 560c60d342a76076f0557a3946924c6478470044
  DEBIAN pool/main/p/pthreadpool/pthreadpool_0.0~git20240616.560c60d.orig.tar.xz
  SHA256 4cc3cbd933b28131d2a34edc54f76af9fb41bc490af5eae1a5bd3cd07ea90708)
weft_pin(cpuinfo
  GIT https://github.com/pytorch/cpuinfo.git COMMIT 877328f188a3c7d1fa855871a278eb48d530c4c0
  DEBIAN pool/main/c/cpuinfo/cpuinfo_0.0~git20250905.877328f.orig.tar.xz
  SHA256 557ca404a3836b9f335a3a06b65ff9fe9dbaaefab7fb5c0185f53d9f33615a10)
weft_pin(fxdiv
  GIT https://github.com/Maratyszcza/FXdiv.git COMMIT b408327ac2a15ec3e43352421954f5b1967701d1
  DEBIAN pool/main/f/fxdiv/fxdiv_0.0~git20200417.b408327.orig.tar.xz
  SHA256 7953482badaf4cb34026c3487c257b8e4ab2df061c019bd6fabbbc12ad52c44b)
weft_pin(highway
  GIT https://github.com/google/highway.git COMMIT 457c891775a7397bdb0376bb1031e6e027af1c48
  DEBIAN pool/main/h/highway/highway_1.2.0.orig.tar.gz
  SHA256 7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)
weft_pin(fmt
  GIT https://github.com/fmtlib/fmt.git COMMIT e3ddede6c4ee818825c4e5a6dfa1d384860c27d9
  DEBIAN pool/main/f/fmtlib/fmtlib_11.1.1+ds1.orig.tar.xz
  SHA256 7d8550c9c5fdc4d03d50b55e0697176a19d3f34a3070580fb54e282da1aca555)
