// A folder that lives as long as a test: files to make, to read and to look for.
#ifndef ZINF_TESTS_TEMPORARY_FOLDER_HH
#define ZINF_TESTS_TEMPORARY_FOLDER_HH

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

class TemporaryFolder
{
  public:
    TemporaryFolder()
    {
        std::string pattern = (std::filesystem::temp_directory_path() / "zinf-test-XXXXXX").string();
        path_ = mkdtemp(&pattern[0]);
    }
    ~TemporaryFolder()
    {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;

    std::string operator/(const std::string &name) const { return path_ + "/" + name; }
    const std::string &path() const { return path_; }

    std::string write(const std::string &name, const std::string &text) const
    {
        std::filesystem::create_directories(std::filesystem::path(*this / name).parent_path());
        std::ofstream(*this / name, std::ios::binary) << text;
        return *this / name;
    }
    std::string read(const std::string &name) const
    {
        std::ostringstream text;
        text << std::ifstream(*this / name, std::ios::binary).rdbuf();
        return text.str();
    }
    bool has(const std::string &name) const
    {
        return std::filesystem::exists(std::filesystem::symlink_status(*this / name));
    }

  private:
    std::string path_;
};

#endif
