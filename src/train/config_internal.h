/*
 * What the files of the configuration reader share. The way of a file: text -> tree (config_tree.c: overrides, old spellings, misplaced
 * keys) -> checked tree (config_check.c) -> completed tree (config_batch.c, config_complete.c, config_model.c) -> struct zinf_config
 * (config.c).
 */
#ifndef ZINF_TRAIN_CONFIG_INTERNAL_H
#define ZINF_TRAIN_CONFIG_INTERNAL_H

#include "train/config.h"
#include "train/config_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A place in the file, or an override: then line is -(index + 1). Set on every value and key of the tree. */
struct zinf_place {
    int line, column;
};

struct zinf_loader {
    const struct zinf_config_options *options;
    struct zinf_config_report *report;
    struct zinf_json *tree;
    struct zinf_config *config;
    const char *optimizer, *scheduler; /* the tables' spelling of the types, NULL = none or unknown */
    char types[2][32];                 /* where they point to */
    bool optimizer_given;              /* also when it was refused */
    bool incomplete;                   /* some members could not be read: what seems to be missing may be there */
    struct zinf_json *refused;         /* paths of given keys whose values were wrong: not missing */
    bool batch_wrong;                  /* a batch key was taken out: nothing can be said about the others */
};

/** Add to a list of the report: "PATH: text" with its place. */
void zinf_loader_say(struct zinf_loader *loader, struct zinf_error_list *list, struct zinf_place place,
                     const char *path, const char *format, ...) __attribute__((format(printf, 5, 6)));
struct zinf_place zinf_place_of(const struct zinf_json *value);

/** Place of a path's value, of its nearest parent, or of the file. */
struct zinf_place zinf_loader_place(const struct zinf_loader *loader, const char *path);

/** Set a value at a dotted path; objects on the way are made. `value` is taken over. */
void zinf_tree_set(struct zinf_json *tree, const char *path, struct zinf_json *value);
void zinf_tree_remove(struct zinf_json *tree, const char *path);

/** The row for a path, with the optimizer's or scheduler's type looked at. */
const struct zinf_key *zinf_loader_key(const struct zinf_loader *loader, const char *path,
                                       const struct zinf_key **other_type);

int zinf_config_read_tree(struct zinf_loader *loader); /* < 0: there is nothing to check */
void zinf_config_normalise(struct zinf_loader *loader, struct zinf_json *tree);
void zinf_config_check_tree(struct zinf_loader *loader);
void zinf_config_check_batch(struct zinf_loader *loader);
void zinf_config_complete(struct zinf_loader *loader);  /* defaults, "auto", what depends on other keys */
void zinf_config_check_run(struct zinf_loader *loader); /* what only a run needs */
/** Unknown keys of the inline fields, which a person types; config.json of a folder may hold any. */
void zinf_config_check_fields(struct zinf_loader *loader);
/** Merge path/config.json and the inline fields and check them; the sequence length's default and bound come from there. */
void zinf_config_read_model(struct zinf_loader *loader);
void zinf_config_fill(struct zinf_loader *loader);      /* tree -> struct */

#ifdef __cplusplus
}
#endif
#endif
