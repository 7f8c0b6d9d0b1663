#include "simd/avx2.h"
#define CNN_ISA avx2
#include "ukernels/all.h"
