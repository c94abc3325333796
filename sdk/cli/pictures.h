// Pictures in files: PPM always, PNG and JPEG where their libraries were found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

bool is_picture(const std::string& name);
std::string picture_kinds();
// RGB of a file; throws std::runtime_error.
void read_picture(const std::string& path, std::vector<std::uint8_t>& rgb, int& width, int& height);
// Ids [height, width] of 1 or 2 bytes as a grey PNG, or one with a palette (RGB a colour); throws std::runtime_error.
void write_png(const std::string& path, const void* ids, int bytes, int width, int height,
               const std::vector<std::uint8_t>& palette);
bool can_write_png();
