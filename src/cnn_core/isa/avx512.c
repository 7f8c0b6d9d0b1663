#include "simd/avx512.h"
#define CNN_ISA avx512
#include "ukernels/all.h"
