// Segment an image on a segrt server, with cpp-httplib and nlohmann-json:
//   g++ -std=c++17 -O2 client.cpp -o client $(pkg-config --cflags --libs cpp-httplib) -pthread
//   ./client http://localhost:8080 road.png result.jpg
// The flags are required: if cpp-httplib is installed as a library, its header must be compiled
// with the options the library was built with.
#include <httplib.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

const std::string ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string encode_base64(const std::string& bytes) {
    std::string text;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        unsigned word = 0;
        for (size_t k = 0; k < 3; ++k) {
            word <<= 8;
            if (i + k < bytes.size()) word |= static_cast<unsigned char>(bytes[i + k]);
        }
        for (size_t k = 0; k < 4; ++k) {
            text += i + k <= bytes.size() ? ALPHABET[word >> (18 - 6 * k) & 63] : '=';
        }
    }
    return text;
}

std::string decode_base64(const std::string& text) {
    std::string bytes;
    unsigned word = 0, bits = 0;
    for (char letter : text) {
        const size_t value = ALPHABET.find(letter);
        if (value == std::string::npos) break;  // the padding at the end
        word = word << 6 | static_cast<unsigned>(value);
        if ((bits += 6) >= 8) bytes += static_cast<char>(word >> (bits -= 8));
    }
    return bytes;
}

int main(int, char** argv) {
    std::ifstream file(argv[2], std::ios::binary);
    const std::string photo{std::istreambuf_iterator<char>(file), {}};
    const nlohmann::json request = {{"image", encode_base64(photo)}, {"visualize", true}};

    httplib::Client client(argv[1]);
    client.set_read_timeout(60);
    const auto reply = client.Post("/semantic-segmentation", request.dump(), "application/json");
    if (!reply) {
        std::cerr << argv[1] << ": " << httplib::to_string(reply.error()) << '\n';
        return 1;
    }
    const auto answer = nlohmann::json::parse(reply->body);
    if (answer["errorCode"] != 0) {
        std::cerr << answer["errorMsg"].get<std::string>() << '\n';
        return 1;
    }

    const auto& result = answer["result"];
    const int height = result["size"][0], width = result["size"][1];
    std::map<int, std::string> names;
    for (const auto& one : result["classes"]) names[one["id"]] = one["name"];
    std::map<int, int> counts;
    for (int label : result["labelMap"]) ++counts[label];
    std::vector<std::pair<int, int>> classes(counts.begin(), counts.end());
    std::stable_sort(classes.begin(), classes.end(),
                     [](auto& a, auto& b) { return a.second > b.second; });
    std::printf("%d x %d\n", width, height);
    for (auto [label, count] : classes) {
        std::printf("%6.2f %%  %s\n", 100.0 * count / (width * height), names[label].c_str());
    }
    std::ofstream(argv[3], std::ios::binary) << decode_base64(result["image"]);
}
