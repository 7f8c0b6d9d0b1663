#include "simd/neon.h"
#define CNN_ISA neon
#include "ukernels/all.h"
