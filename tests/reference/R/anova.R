# Tests of terms of types I, II and III (anova/): lmerTest at the optimum of lme4, on unbalanced data.

# `left_out` are row numbers, `large` adds a factor of large litters.
anova_data <- function(ref) {
  data <- need(ref$data)
  if (length(ref$left_out)) data <- data[-unlist(ref$left_out), ]
  if (!is.null(ref$large)) data$large <- factor(ifelse(data$lsize > ref$large, "yes", "no"))
  data
}

anova_numbers <- function(ref) {
  assign("anova_rows", anova_data(ref), envir = globalenv())
  call <- as.call(list(quote(lme4::lmer), as.formula(ref$formula), data = quote(anova_rows), REML = TRUE))
  fit <- lmerTest::as_lmerModLmerTest(polish(call))
  lapply(list(satterthwaite = "Satterthwaite", kenward_roger = "Kenward-Roger"), function(ddf) {
    lapply(setNames(nm = c("I", "II", "III")), function(type) {
      test <- as.data.frame(anova(fit, ddf = ddf, type = type))[c("NumDF", "DenDF", "F value", "Pr(>F)")]
      setNames(rows(test), rownames(test))
    })
  })
}

for (path in listed("anova")) remake(path, anova_numbers)
