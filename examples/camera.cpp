// Frames come faster than one thread can look at them: one plan, and a thread with its own context for each core.
//   camera digits.cnn digit.pgm [threads [frames]]
#include <cnn_core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kSize = 28;
using Frame = std::vector<float>;
using Plan = std::unique_ptr<cnn_plan, decltype(&cnn_plan_free)>;
using Context = std::unique_ptr<cnn_context, decltype(&cnn_context_free)>;

void check(cnn_status status)
{
    if (status != CNN_OK) throw std::runtime_error(cnn_last_error());
}

Plan load(const char *path)
{
    cnn_plan_options options{};
    options.threads = 1;  // of each run: the program's own threads share the cores
    cnn_plan *plan = nullptr;
    check(cnn_plan_load(path, &options, &plan));
    return Plan(plan, cnn_plan_free);
}

Frame read_image(const char *path)
{
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int width = 0, height = 0, brightest = 0;
    file >> magic >> width >> height >> brightest;
    file.get();
    std::vector<char> pixels(kSize * kSize);
    if (magic != "P5" || width != kSize || height != kSize || !file.read(pixels.data(), kSize * kSize))
        throw std::runtime_error(std::string(path) + ": not a binary PGM of 28x28 pixels");
    Frame frame(pixels.size());
    std::transform(pixels.begin(), pixels.end(), frame.begin(),
                   [](char pixel) { return static_cast<float>(static_cast<unsigned char>(pixel)) / 255.0f; });
    return frame;
}

// What a thread does: takes the next frame, moves the digit as a shaking camera would, and says what it sees.
void watch(const cnn_plan *plan, const Frame &picture, std::atomic<int> &next, std::vector<int> &seen)
{
    cnn_context *made = nullptr;
    check(cnn_context_create(plan, &made));
    const Context context(made, cnn_context_free);
    Frame frame(picture.size());
    std::vector<float> scores(10);
    check(cnn_context_bind(made, cnn_plan_input(plan, 0), frame.data(), nullptr));
    check(cnn_context_bind(made, cnn_plan_output(plan, 0), scores.data(), nullptr));
    for (int i = next++; i < static_cast<int>(seen.size()); i = next++) {
        const int shift = i % 3;  // columns; the margin of these images is empty
        std::copy(picture.begin(), picture.end() - shift, frame.begin() + shift);
        check(cnn_context_forward(made));
        seen[i] = static_cast<int>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    }
}

}  // namespace

int main(int argc, char **argv)
try {
    if (argc < 3) throw std::runtime_error("usage: camera digits.cnn digit.pgm [threads [frames]]");
    const Plan plan = load(argv[1]);
    const Frame picture = read_image(argv[2]);
    const int threads = argc > 3 ? std::atoi(argv[3]) : static_cast<int>(std::thread::hardware_concurrency());
    std::vector<int> seen(argc > 4 ? std::atoi(argv[4]) : 1000);

    std::atomic<int> next{0};
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> watchers;
    for (int i = 0; i < threads; i++)
        watchers.emplace_back(watch, plan.get(), std::cref(picture), std::ref(next), std::ref(seen));
    for (std::thread &watcher : watchers) watcher.join();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;

    for (int digit = 0; digit < 10; digit++) {
        const auto count = std::count(seen.begin(), seen.end(), digit);
        if (count) std::printf("%d in %d of %d frames\n", digit, static_cast<int>(count), static_cast<int>(seen.size()));
    }
    std::printf("%.0f frames a second on %d threads\n", static_cast<double>(seen.size()) / time.count(), threads);
    return EXIT_SUCCESS;
} catch (const std::exception &error) {
    std::fprintf(stderr, "camera: %s\n", error.what());
    return EXIT_FAILURE;
}
