/*
 * zinf's own keys, all in one object that DeepSpeed ignores. Contract section 2.
 */
#include "train/config_key_rows.h"

#define KEY(path, ...) ROW("zinf." path, __VA_ARGS__)
#define WITH_EVAL      ZINF_COUNTS_WITH_EVAL

// clang-format off
const struct zinf_key zinf_keys_own[] = {
    {"zinf", ZINF_KEY_OBJECT, NULL, "", "", WORKS, "zinf's own keys", NULL, NULL},
    KEY("model", OBJECT, NULL, "", "", WORKS, ""),
    KEY("model.path", PATH, "null", "", "", WORKS, "Hugging Face folder: config.json, *.safetensors, tokenizer files"),
    KEY("model.config", OPEN, "null", "", "", WORKS, "fields of config.json; wins over path, key by key"),
    KEY("model.init", CHOICE, "\"auto\"", "auto|pretrained|random", "", WORKS, "auto = pretrained if the folder holds weights"),
    KEY("model.task", CHOICE, "\"causal-lm\"", "causal-lm|sequence-classification!", "", WORKS, ""),
    KEY("model.num_labels", INTEGER, "2", "[1,)", "labels", NOT_YET, ZINF_COUNTS_WITH "sequence-classification"),

    KEY("data", OBJECT, NULL, "", "", WORKS, ""),
    KEY("data.train", PATHS, "null", "", "", WORKS, "a path, a glob or a list of them; required for training"),
    KEY("data.eval", PATHS, "null", "", "", WORKS, "a path, a glob or a list of them"),
    KEY("data.format", CHOICE, "\"auto\"", "auto|text|jsonl!|csv!|tsv!|tokens!", "", WORKS, "auto = by ending"),
    KEY("data.tokenizer", PATH, "null", "", "", WORKS, "folder or file; null = model.path; \"bytes\" = a token per byte; others not yet"),
    KEY("data.fields", LIST, "[\"text\"]", "", "", NOT_YET, ZINF_COUNTS_WITH "jsonl, csv and tsv"),
    KEY("data.label_field", ANY, "null", "", "", NOT_YET, ZINF_COUNTS_WITH "sequence-classification"),
    KEY("data.label_names", STRINGS, "null", "", "", NOT_YET, ZINF_COUNTS_WITH "sequence-classification"),
    KEY("data.sequence_length", INTEGER, "null", "[1,)", "tokens", WORKS, "null = min(1024, the model's positions)"),
    KEY("data.packing", CHOICE, "null", "concat|none!", "", WORKS, "null = concat, for classification none"),
    KEY("data.label_pad", CHOICE, "\"ignore\"", "ignore|train!", "", WORKS, ""),
    KEY("data.invalid_utf8", CHOICE, "\"error\"", "error|replace!", "", WORKS, "the bytes tokenizer takes any bytes"),
    KEY("data.shuffle", BOOL, "true", "", "", WORKS, "false = file order"),

    KEY("train", OBJECT, NULL, "", "", WORKS, ""),
    KEY("train.steps", INTEGER, "null", "[1,)", "steps", WORKS, "exactly one of steps and epochs"),
    KEY("train.epochs", NUMBER, "null", "(0,1000000000]", "epochs", WORKS, "exactly one of steps and epochs"),
    KEY("train.eval_every", INTEGER, "null", "[1,)", "steps", WORKS, "null = at every scheduled checkpoint; " WITH_EVAL),
    KEY("train.eval_batches", INTEGER, "null", "[1,)", "batches", WORKS, "null = all; " WITH_EVAL),
    KEY("train.eval_micro_batch", INTEGER, "null", "[1,)", "samples", WORKS, "null = the micro-batch; " WITH_EVAL),
    KEY("train.seed", INTEGER, "42", "[0,)", "", WORKS, ""),
    KEY("train.no_decay", STRINGS, "[]", "", "", WORKS, "what weight decay leaves alone: a word is whole parts of a name (bias, ln_1.weight), a pattern with * ? [ ] the whole name (*.bias)"),
    KEY("train.loss_mean", CHOICE, "\"tokens\"", "tokens|micro_batch", "", WORKS, "the same while every micro-batch counts as many tokens, as in packing concat"),
    KEY("train.max_nonfinite", INTEGER, "25", "[1,)", "steps", WORKS, "so many skipped steps in a row end the run"),

    KEY("memory", OBJECT, NULL, "", "", WORKS, ""),
    KEY("memory.device", SIZE, "\"auto\"", "", "bytes", WORKS, "what a rank may use"),
    KEY("memory.host", SIZE, "\"auto\"", "", "bytes", WORKS, "what a rank may use; auto = 0.9 x what the machine and its limits leave a rank"),
    KEY("memory.nvme", SIZE, "\"auto\"", "", "bytes", WORKS, "what a rank may put on its nvme_path; auto = what is free there; what states leave of it, of auto half, holds spare extents for early updates"),
    KEY("memory.cache", SIZE, "\"0\"", "", "bytes", WORKS, "host memory that keeps records of an optimizer on nvme; auto = all that host leaves"),
    KEY("memory.activations", CHOICE, "\"auto\"", "auto|keep|recompute|cpu|nvme", "", WORKS, "auto keeps what fits, recomputes the rest; cpu, nvme: recompute from inputs that stand there (nvme in offload_optimizer.nvme_path, else offload_param's)"),

    KEY("schedule", CHOICE, "\"auto\"", "auto|plain|vertical!", "", WORKS, "vertical = all micro-batches through a block before the next"),
    KEY("bind", CHOICE, "\"auto\"", "auto|none|core|numa", "", WORKS, "auto: ranks nobody has bound get cores of one NUMA node, if all threads fit"),
    KEY("watchdog_s", NUMBER, "600", "[0,)", "s", WORKS, "0 = off"),

    KEY("checkpoint", OBJECT, NULL, "", "", WORKS, ""),
    KEY("checkpoint.every_steps", INTEGER, "null", "[1,)", "steps", WORKS, "null = last step and signals only"),
    KEY("checkpoint.every_minutes", NUMBER, "null", "(0,)", "min", WORKS, ""),
    KEY("checkpoint.every_epoch", BOOL, "false", "", "", WORKS, ""),
    KEY("checkpoint.num_to_keep", INTEGER, "2", "[1,)", "checkpoints", WORKS, "counts all; the latest and the best always stay"),
    KEY("checkpoint.score_attribute", CHOICE, "\"eval_loss\"", "eval_loss|eval_perplexity|eval_accuracy!|eval_f1!|null", "", WORKS, "what makes a checkpoint the best; " WITH_EVAL),
    KEY("checkpoint.score_order", CHOICE, "\"min\"", "min|max", "", WORKS, WITH_EVAL),
    KEY("checkpoint.resume", PATH, "\"auto\"", "", "", WORKS, "auto | never | a checkpoint"),

    KEY("run", OBJECT, NULL, "", "", WORKS, ""),
    KEY("run.dir", PATH, "null", "", "", WORKS, "null = runs/<name of ds.json>"),
    KEY("log", OBJECT, NULL, "", "", WORKS, ""),
    KEY("log.jsonl", BOOL, "true", "", "", WORKS, "write metrics.jsonl"),
    KEY("device", CHOICE, "\"auto\"", "auto|cpu|cuda", "", WORKS, "auto: a GPU where there is one (not verified on a card yet), else the CPU"),
    KEY("tf32", BOOL, "false", "", "", WORKS, "matrix products on tensor cores, which round their factors to 10 bits of mantissa; " ZINF_COUNTS_WITH_FP32),
    KEY("graphs", CHOICE, "\"auto\"", "auto|on|off", "", WORKS, "on a GPU (not verified on a card yet): the kernels of a block are recorded and launched at once, with the same bits; auto: where a measurement in the first steps shows that it pays"),
    {0}};
