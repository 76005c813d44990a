/*
 * The folder that an export makes: temporary name, the files that are not weights, config.json, final name. All functions are local, for rank 0.
 */
#ifndef ZINF_CLI_EXPORT_FOLDER_H
#define ZINF_CLI_EXPORT_FOLDER_H

#include "base/dtype.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Make "<out>.tmp.<id>" when `out` does not exist or is empty. @return 0, ZINF_E_USAGE, ZINF_E_RUNTIME; *temporary owned by the caller */
int zinf_export_folder_begin(const char *out, char **temporary, struct zinf_error *error);

/** Copy all files of `source` but weights and config.json. A source that is gone is a warning. */
int zinf_export_folder_copy(const char *temporary, const char *source, struct zinf_error *error);

/**
 * config.json: `model_config` with dtype (torch_dtype where the source had that) and, where it has none, architectures.
 * @param model_config  JSON text of the checkpoint
 */
int zinf_export_folder_config(const char *temporary, const char *model_config, enum zinf_dtype dtype,
                              struct zinf_error *error);

/** Give the folder its name; fsync of its parent. */
int zinf_export_folder_finish(const char *temporary, const char *out, struct zinf_error *error);
/** Remove the temporary folder and the files in it. */
void zinf_export_folder_remove(const char *temporary);

#ifdef __cplusplus
}
#endif
#endif
