/*
 * A ds.json as text, loaded: what the tests of the configuration share.
 */
#ifndef ZINF_TESTS_CONFIG_TEXT_H
#define ZINF_TESTS_CONFIG_TEXT_H

#include "train/config.h"
#include "train/config_keys.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{
// A loaded text; the file is always called "ds.json" in a folder of its own.
class Config
{
  public:
    zinf_config *config = nullptr;
    zinf_config_report report = {};
    int status = 0;

    Config(const std::string &text, std::vector<std::string> sets = {}, int ranks = 1,
           zinf_config_purpose purpose = ZINF_CONFIG_CHECK)
    {
        char folder[] = "/tmp/zinf_config_XXXXXX";
        EXPECT_NE(mkdtemp(folder), nullptr);
        file = std::string(folder) + "/ds.json";
        std::ofstream(file) << text;
        std::vector<std::string> paths, values, places;
        for (auto &set : sets) {
            paths.push_back(set.substr(0, set.find('=')));
            values.push_back(set.substr(set.find('=') + 1));
            places.push_back("--set " + paths.back());
        }
        std::vector<zinf_config_override> overrides;
        for (size_t i = 0; i < sets.size(); i++)
            overrides.push_back({paths[i].c_str(), values[i].c_str(), places[i].c_str()});
        zinf_config_options options = {};
        options.file = file.c_str();
        options.overrides = overrides.data();
        options.override_count = (int)overrides.size();
        options.ranks = ranks;
        options.purpose = purpose;
        status = zinf_config_load(&config, &options, &report);
        EXPECT_EQ(status == 0, config != nullptr);
        EXPECT_EQ(status == 0, report.errors.count == 0);
        unlink(file.c_str());
        rmdir(folder);
    }
    ~Config()
    {
        zinf_config_report_release(&report);
        zinf_config_free(config);
    }
    Config(const Config &) = delete;

    // "ds.json:2:3: text" of an entry
    std::string line(const zinf_error_list &list, size_t i) const
    {
        if (i >= list.count)
            return "none";
        char text[2300];
        zinf_error_print(&list.items[i], text, sizeof text);
        std::string whole = text;
        size_t folder = whole.find(file);
        return folder == std::string::npos ? whole : whole.replace(folder, file.size(), "ds.json");
    }
    std::string error(size_t i = 0) const
    {
        return line(report.errors, i);
    }
    std::string all(const zinf_error_list &list) const
    {
        std::string text;
        for (size_t i = 0; i < list.count; i++)
            text += line(list, i) + "\n";
        return text;
    }
    std::string effective(const char *path) const
    {
        zinf_json *value = config ? zinf_json_path(config->effective, path) : nullptr;
        if (!value)
            return "absent";
        char *text = zinf_json_print(value, -1);
        std::string copy = text;
        free(text);
        return copy;
    }
    std::string file;
};

// `members` inside the smallest complete configuration
inline std::string with(const std::string &members)
{
    return "{\"train_micro_batch_size_per_gpu\": 2,\n\"optimizer\": {\"type\": \"AdamW\"}" +
           (members.empty() ? "" : ",\n" + members) + "}";
}

inline void expect_begin(const std::string &text, const std::string &begin)
{
    EXPECT_EQ(text.substr(0, begin.size()), begin);
}

inline void expect_in(const std::string &text, const std::string &part)
{
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

} // namespace
#endif
