/* Says which digit an image shows: classify digits.cnn digit.pgm */
#include <cnn_core.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SIZE 28

static double milliseconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "classify: %s: %s\n", what, why);
    return EXIT_FAILURE;
}

/* Reads a binary PGM of 28x28 grey pixels into numbers from 0 to 1. */
static int read_image(const char *path, float image[SIZE * SIZE])
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) return 0;
    unsigned char pixels[SIZE * SIZE];
    int width, height, brightest;
    const int known = fscanf(file, "P5 %d %d %d", &width, &height, &brightest) == 3 && fgetc(file) != EOF
                      && width == SIZE && height == SIZE && brightest == 255
                      && fread(pixels, 1, sizeof pixels, file) == sizeof pixels;
    fclose(file);
    for (int i = 0; known && i < SIZE * SIZE; i++) image[i] = (float)pixels[i] / 255.0f;
    return known;
}

int main(int argc, char **argv)
{
    const double start = milliseconds();
    if (argc != 3) return fail("usage", "classify digits.cnn digit.pgm");

    float image[SIZE * SIZE], scores[10];
    if (!read_image(argv[2], image)) return fail(argv[2], "not a binary PGM of 28x28 pixels");

    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    cnn_status status = cnn_plan_load(argv[1], NULL, &plan);
    if (status == CNN_OK) status = cnn_context_create(plan, &context);
    if (status == CNN_OK) status = cnn_context_bind(context, cnn_plan_input(plan, 0), image, NULL);
    if (status == CNN_OK) status = cnn_context_bind(context, cnn_plan_output(plan, 0), scores, NULL);
    if (status == CNN_OK) status = cnn_context_forward(context);
    if (status == CNN_OK) {
        int digit = 0;
        for (int i = 1; i < 10; i++) {
            if (scores[i] > scores[digit]) digit = i;
        }
        printf("%d\n%.2f ms from start to answer\n", digit, milliseconds() - start);
    }
    cnn_context_free(context);
    cnn_plan_free(plan);
    return status == CNN_OK ? EXIT_SUCCESS : fail(argv[1], cnn_last_error());
}
