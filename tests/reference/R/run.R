# Make the reference results anew and compare every number with the frozen one.
#
#   Rscript run.R TESTS_FOLDER DATA_FOLDER OUT_FOLDER     (`make references` gives the folders)

arguments <- commandArgs(trailingOnly = TRUE)
HERE <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(HERE, "common.R"))
FOLDER <- arguments[1]
FOLDERS <- fromJSON(file.path(HERE, "..", "folders.json"))
OUT <- arguments[3]
load_data(arguments[2])
for (script in c("lme4", "nlme", "groups", "factors", "exponential", "structures", "splines", "gee", "effects", "anova", "comparisons", "generalized", "generalized_effects", "factor_families")) source(file.path(HERE, paste0(script, ".R")))

results <- do.call(rbind, RESULTS)
compared <- results[!is.na(results$gap), ]
worst <- head(compared[order(-compared$gap), ], 10)
cat(sprintf("\n%d files, %d of their %d numbers made anew; %d files skipped.\nLargest relative differences:\n",
            nrow(compared), sum(compared$remade), sum(compared$total), sum(is.na(results$gap))))
cat(sprintf("  %8.1e  %s  %s\n", worst$gap, worst$path, worst$where), sep = "")
off <- sum(compared$gap > TOLERANCE)
cat(if (off) sprintf("%d files differ by more than %g.\n", off, TOLERANCE) else sprintf("All within %g.\n", TOLERANCE))
quit(status = as.integer(off > 0))
