# Degrees of freedom, marginal means and contrasts (effects/): lmerTest, pbkrtest and emmeans at the optimum of lme4.

suppressMessages(library(emmeans))
emm_options(cov.keep = character(0))

METHODS <- c(satterthwaite = "Satterthwaite", kenward_roger = "Kenward-Roger")

coef_tables <- function(fit, methods) {
  numbers <- list(coef = as.list(fixef(fit)), sigma = sigma(fit), vcov = unname(as.matrix(vcov(fit))))
  for (key in names(methods)) {
    table <- summary(fit, ddf = methods[[key]])$coefficients
    columns <- c(if (key == "kenward_roger") c(se = "Std. Error"), df = "df", t = "t value", p = "Pr(>|t|)")
    numbers[[key]] <- lapply(setNames(nm = rownames(table)), function(name) as.list(setNames(table[name, columns], names(columns))))
    test <- as.data.frame(anova(fit, ddf = methods[[key]]))[c("NumDF", "DenDF", "F value", "Pr(>F)")]
    numbers[[paste0("anova_", key)]] <- setNames(rows(test), rownames(test))
  }
  if ("kenward_roger" %in% names(methods)) numbers$vcov_adj <- unname(as.matrix(pbkrtest::vcovAdj(fit)))
  numbers
}

joint <- function(fit, part, methods) {
  L <- do.call(rbind, lapply(part$L, unlist))
  lapply(methods, function(ddf) {
    test <- lmerTest::contestMD(fit, L, rhs = unlist(part$rhs), ddf = ddf)
    list(F = test$`F value`, df1 = test$NumDF, df2 = test$DenDF, p = test$`Pr(>F)`)
  })
}

# What emmeans was asked for each model; `m` computes degrees of freedom by the method at hand.
ADJUSTMENTS <- c("tukey", "holm", "bonferroni", "sidak", "none", "fdr")
ASKED <- list(
  dental = function(m, means, trends) {
    at <- list(time = c(0, 6))
    by_time <- means(m, ~ sex | time, at = at)
    slopes <- trends(m, ~ sex, var = "time")
    list(means = by_time, means_overall = means(m, ~ sex), pairs = pairs(by_time), slopes = slopes, slopes_pairs = pairs(slopes),
         cells_tukey = pairs(means(m, ~ sex * time, at = at)))
  },
  petri = function(m, means, trends) {
    groups <- means(m, ~ group)
    adjusted <- lapply(ADJUSTMENTS, function(x) summary(pairs(groups), infer = TRUE, adjust = x))
    c(setNames(adjusted, paste0("pairs_", ADJUSTMENTS)), list(
      means = groups, control_none = contrast(groups, "trt.vs.ctrl", adjust = "none"),
      consecutive_none = contrast(groups, "consec", adjust = "none"),
      custom = contrast(groups, list("treated - control" = c(-1, .5, .5)))
    ))
  },
  rat_pups = function(m, means, trends) {
    by_sex <- means(m, ~ treatment | sex)
    list(means_equal = means(m, ~ treatment), means_proportional = means(m, ~ treatment, weights = "proportional"),
         means_held = means(m, ~ lsize, at = list(sex = "Male", lsize = c(10, 14)), weights = "proportional"),
         means_some = means(m, ~ treatment, at = list(treatment = c("Control", "High")), weights = "proportional"),
         means_by = means(m, ~ treatment | sex, at = list(lsize = 10)), pairs = pairs(means(m, ~ treatment)), pairs_by = pairs(by_sex),
         pairs_by_holm = pairs(by_sex, adjust = "holm"), control_by = contrast(by_sex, "trt.vs.ctrl", adjust = "none"))
  },
  sleepstudy = function(m, means, trends) {
    list(slopes = trends(m, ~ days, var = "days", at = list(days = c(0, 4.5, 9)), delta.var = 1e-6))
  }
)

asked <- function(fit, data, methods, keys) {
  found <- list()
  for (key in names(methods)) {
    df <- tolower(methods[[key]])
    tables <- ASKED[[data]](fit, function(...) emmeans(..., lmer.df = df), function(...) emtrends(..., lmer.df = df))
    for (name in intersect(names(tables), keys)) {
      table <- tables[[name]]
      found[[name]][[key]] <- rows(if (inherits(table, "summary_emm")) table else summary(table, infer = TRUE))
    }
  }
  found
}

multivariate_t <- function(ref) {
  two <- matrix(c(1, .5, .5, 1), 2)
  four <- matrix(c(1, .3, .2, .1, .3, 1, .4, -.2, .2, .4, 1, .5, .1, -.2, .5, 1), 4)
  precise <- mvtnorm::GenzBretz(maxpts = 5e7, abseps = 1e-9)
  p <- function(rows, corr) lapply(rows, function(row) {
    t <- rep(row$t, nrow(corr))
    list(p = 1 - as.numeric(mvtnorm::pmvt(-t, t, df = row$df, corr = corr, algorithm = precise)))
  })
  list(mvt = p(ref$mvt, two), mvt4 = p(ref$mvt4, four))
}

effect_numbers <- function(ref) {
  set.seed(1)
  fit <- polish(call("lmer", as.formula(ref$formula), data = as.name(ref$data), REML = ref$method == "REML"))
  fit <- lmerTest::as_lmerModLmerTest(fit)
  methods <- as.list(METHODS[names(METHODS) %in% names(ref)])
  numbers <- coef_tables(fit, methods)
  if (ref$data %in% names(ASKED)) numbers <- c(numbers, asked(fit, ref$data, methods, names(ref)))
  for (key in grep("^joint", names(ref), value = TRUE)) numbers[[key]] <- joint(fit, ref[[key]], methods)
  if (!is.null(ref$mvt)) numbers <- c(numbers, multivariate_t(ref))
  numbers
}

for (path in setdiff(listed("effects"), "effects/sleepstudy_kr_anova.json")) remake(path, effect_numbers)

remake("effects/sleepstudy_kr_anova.json", function(ref) {
  fit <- lmerTest::lmer(reaction ~ days + (days | subject), sleepstudy)
  lapply(list(kr = "Kenward-Roger", satt = "Satterthwaite"), function(ddf) {
    list(days = rows(as.data.frame(anova(fit, ddf = ddf)))[[1]])
  })
})
