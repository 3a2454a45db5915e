# Splines (splines/), curves with their limits (effect_plots/) and areas under a covariate (time_varying/).

remake("splines/bases.json", function(ref) {
  list(bases = lapply(ref$bases, function(part) {
    x <- unlist(part$x)
    basis <- eval(parse(text = part$r_call))
    numbers <- list(basis = unclass(basis), new_basis = unclass(predict(basis, unlist(part$new))))
    numbers <- lapply(numbers, function(m) matrix(as.numeric(m), nrow(m)))
    if (part$kind != "poly") {
      numbers$knots <- as.list(unname(attr(basis, "knots")))
      numbers$boundary <- as.numeric(attr(basis, "Boundary.knots"))
    }
    numbers
  }))
})

remake("splines/pbc_ns_basis.json", function(ref) {
  basis <- ns(need("pbc2")$year, 2)
  grid <- predict(basis, unlist(ref$grid_year))
  list(knots = unname(attr(basis, "knots")), boundary_knots = as.numeric(attr(basis, "Boundary.knots")),
       first10_year = head(pbc2$year, 10), first10_basis = matrix(basis[1:10, ], 10), grid_basis = matrix(grid, nrow(grid)))
})

# lme4 on the columns z of model.matrix(`inner`): `formula` has them in its random terms.
fit_columns <- function(formula, inner, data, reml) {
  z <- model.matrix(as.formula(inner), need(data))
  columns <- setNames(as.data.frame(z), paste0("z", seq_len(ncol(z))))
  assign("with_columns", cbind(get(data), columns), envir = globalenv())
  polish(call("lmer", as.formula(formula), data = quote(with_columns), REML = reml))
}

optimum_of <- function(fit) {
  V <- as.matrix(vcov(fit))
  b <- as.matrix(ranef(fit)[[1]])
  list(logLik = as.numeric(logLik(fit)), coef = as.list(fixef(fit)), se = as.list(setNames(sqrt(diag(V)), names(fixef(fit)))),
       sigma = sigma(fit), D = random_cov(fit), fitted_first5 = first5(fitted(fit)),
       fitted_pop_first5 = first5(predict(fit, re.form = NA)), blup_first5 = unname(head(b, 5)))
}

spline_numbers <- function(ref) {
  text <- regmatches(ref$r_call, regexec("optimum: lme4 (.*) on the columns z of model.matrix\\((.*)\\), polished", ref$r_call))[[1]]
  optimum <- fit_columns(text[2], text[3], ref$data, ref$method == "REML")
  fit <- eval(recorded_call(ref$r_call))
  own <- nlme_numbers(fit)
  own$D <- own$random_cov$matrix
  own$se <- as.list(sqrt(diag(vcov(fit))))  # without sqrt(N / (N - p)) under ML
  list(n_obs = nobs(optimum), optimum = optimum_of(optimum), nlme = own[intersect(names(own), names(ref$nlme))])
}

for (path in listed("splines", "_(reml|ml)[.]json$")) remake(path, spline_numbers)

curve_numbers <- function(data, formula, grid, beta, V) {
  grid <- as.data.frame(lapply(grid, unlist))
  X <- model.matrix(delete.response(terms(lm(as.formula(formula), need(data)))), grid, xlev = list(sex = levels(get(data)$sex)))
  pred <- as.vector(X %*% beta)
  se <- sqrt(rowSums((X %*% as.matrix(V)) * X))
  list(pred = pred, se = se, low = pred - 1.96 * se, upp = pred + 1.96 * se)
}

remake("splines/pbc_effectplot_grid.json", function(ref) {
  fit <- eval(recorded_call(sub("^fixef and vcov of ", "", ref$r_call)))
  grid <- lapply(setNames(nm = names(ref$grid[[1]])), function(key) lapply(ref$grid, `[[`, key))
  curve_numbers("pbc2", formula(fit), grid, fixef(fit), vcov(fit))[c("pred", "low", "upp")]
})

for (path in listed("effect_plots")) remake(path, function(ref) {
  fixed <- "log(bili) ~ ns(year, 2) * sex + (age + basepro) * sex"
  if (ref$data == "pbc2") fixed <- sub("bili", "serbilir", fixed)
  fit <- fit_columns(paste(fixed, "+ (0 + z1 + z2 + z3 | id)"), "~ns(year, 2)", ref$data, TRUE)
  lapply(ref[c("inside", "beyond")], function(part) curve_numbers(ref$data, fixed, part$grid, fixef(fit), vcov(fit)))
})

# Areas under the prothrombin time ------------------------------------------------------------------------------------

areas <- function(patient) {
  year <- patient$year
  value <- patient$protime
  last <- length(year)
  width <- diff(year)
  later <- year + 0.5
  area <- vapply(seq_along(year), function(i) {
    at <- c(year[year <= later[i]], later[i])
    height <- if (last == 1) rep(value, length(at)) else approx(year, value, at, rule = 2)$y
    sum(diff(at) * (head(height, -1) + tail(height, -1)) / 2)
  }, 0)
  between <- function(method) if (last == 1) value else approx(year, value, later, method = method, rule = 2)$y
  data.frame(id = patient$id, trap = c(0, cumsum(width * (value[-last] + value[-1]) / 2)), step = c(0, cumsum(width * value[-last])),
             linear = between("linear"), carried = between("constant"), area)
}

remake("time_varying/pbc.json", function(ref) {
  all <- do.call(rbind, lapply(split(need("pbcseq"), pbcseq$id), areas))
  all <- all[order(as.numeric(as.character(all$id))), ]
  few <- head(all, ref$n)
  c(as.list(few[c("trap", "step", "linear", "carried", "area")]), list(sum_trap_all = sum(all$trap), sum_step_all = sum(all$step)))
})

remake("time_varying/pbc_fits.json", function(ref) {
  lapply(list(trap = "cum_trap", step = "cum_locf"), function(x) {
    fixed <- as.formula(paste("log(serbilir) ~ ns(year, 2) + sex + age +", x))
    fit <- do.call(lme, list(fixed, data = need("pbc2"), random = list(id = pdDiag(form = ~ ns(year, 2)))))
    list(coef = unname(fixef(fit)), se = unname(sqrt(diag(vcov(fit)))), logLik = as.numeric(logLik(fit)))
  })
})
