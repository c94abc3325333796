// Where frames come from: raw RGB or YUV4MPEG2 on a pipe or in a file, or a folder of pictures.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

// A frame, RGB without spaces between rows.
struct Frame {
    std::vector<std::uint8_t> rgb;
    int width = 0, height = 0;
    double time = 0;
    std::string name;  // where the source has one
};

class Frames {
public:
    virtual ~Frames() = default;
    // The next frame; false at the end. Throws std::runtime_error where the source breaks off within a frame.
    virtual bool next(Frame& frame) = 0;
    double rate = 25;
    int rate_num = 25, rate_den = 1;
};

struct SourceOptions {
    std::string source = "-";
    int width = 0, height = 0;  // of raw frames
    bool bgr = false;
    int rate_num = 25, rate_den = 1;
    bool bt709 = false;
};

std::unique_ptr<Frames> open_frames(const SourceOptions& options);
