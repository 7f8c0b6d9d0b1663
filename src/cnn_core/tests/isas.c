/* Prints the ISAs that this CPU and this build have: `make test` runs the tests on each. */
#include <stdio.h>

#include "cnn_core.h"

int main(void)
{
    puts(cnn_available_isas());
    return 0;
}
