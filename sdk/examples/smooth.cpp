// smooth BUNDLE WIDTH HEIGHT < frames.rgb > labels.u8: labels blended along the motion that OpenCV's DIS finds.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <opencv2/imgproc.hpp>
#include <opencv2/video/tracking.hpp>
#include <ov2vss/ov2vss.hpp>
#include <vector>

// Where every cell of the present was in the frame before, and trust that falls where grey levels differ all the same.
static int32_t motion(const uint8_t* now, const uint8_t* before, int32_t height, int32_t width, int32_t cells_high,
                      int32_t cells_wide, float* flow, float* trust, void* user) {
    cv::Mat grey[2], found, moved, difference, cells, doubt;
    for (int i = 0; i < 2; ++i) {
        const cv::Mat rgb(height, width, CV_8UC3, const_cast<uint8_t*>(i ? before : now));
        cv::cvtColor(rgb, grey[i], cv::COLOR_RGB2GRAY);
        cv::resize(grey[i], grey[i], {width / 2, height / 2}, 0, 0, cv::INTER_AREA);
    }
    static_cast<cv::DISOpticalFlow*>(user)->calc(grey[0], grey[1], found);
    cv::Mat places = found.clone();
    for (int y = 0; y < places.rows; ++y)
        for (int x = 0; x < places.cols; ++x)
            places.at<cv::Vec2f>(y, x) += cv::Vec2f(static_cast<float>(x), static_cast<float>(y));
    cv::remap(grey[1], moved, places, {}, cv::INTER_LINEAR, cv::BORDER_REPLICATE);
    cv::absdiff(grey[0], moved, difference);
    difference.convertTo(difference, CV_32F);
    cv::resize(found, cells, {cells_wide, cells_high}, 0, 0, cv::INTER_AREA);
    cv::resize(difference, doubt, {cells_wide, cells_high}, 0, 0, cv::INTER_AREA);
    const float across = static_cast<float>(cells_wide) / static_cast<float>(found.cols);
    const float down = static_cast<float>(cells_high) / static_cast<float>(found.rows);
    for (int y = 0; y < cells_high; ++y)
        for (int x = 0; x < cells_wide; ++x) {
            *flow++ = cells.at<cv::Vec2f>(y, x)[0] * across;
            *flow++ = cells.at<cv::Vec2f>(y, x)[1] * down;
            *trust++ = std::exp(-doubt.at<float>(y, x) / 7.0f);
        }
    return cv::mean(doubt)[0] > 40 ? 1 : 0;  // another shot
}

int main(int count, char** arguments) try {
    if (count != 4) {
        std::cerr << "usage: smooth BUNDLE WIDTH HEIGHT < frames.rgb > labels.u8\n";
        return 2;
    }
    const ov2vss::Engine engine(arguments[1]);
    const auto dis = cv::DISOpticalFlow::create(cv::DISOpticalFlow::PRESET_ULTRAFAST);
    ov2vss::StreamOptions options;
    options.smooth = 1;
    options.motion = motion;
    options.motion_user = dis.get();
    ov2vss::Stream stream(engine, options);
    const int width = std::stoi(arguments[2]), height = std::stoi(arguments[3]);
    const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    std::vector<std::uint8_t> rgb(3 * pixels), labels(pixels);
    while (std::fread(rgb.data(), 3, pixels, stdin) == pixels) {
        stream.step(ov2vss::rgb(rgb.data(), width, height), ov2vss::no_time, labels.data());
        std::fwrite(labels.data(), 1, pixels, stdout);
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "smooth: " << error.what() << "\n";
    return 1;
}
