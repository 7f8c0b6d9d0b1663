#include "cnn_core.h"

const char *cnn_version(void)
{
    return "0.1.0";
}

int32_t cnn_abi_version(void)
{
    return CNN_ABI_VERSION;
}
