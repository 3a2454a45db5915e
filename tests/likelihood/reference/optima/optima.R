# The lowest REML criterion or deviance of every random design (tests/optima_designs.py), by lme4 from 26 starts.
#
#   Rscript optima.R FOLDER OUT [STARTS]    FOLDER holds designs.csv and rows.csv; STARTS further starts (id, theta)
#
# The columns of the random part are scaled to unit mean square, and with correlated terms centred first: the model is
# the same, its theta of comparable size. Each start is descended from by BOBYQA; the lowest are polished.
# One parameter is searched on a grid.

suppressMessages(library(lme4))

STARTS <- 26
LOOSE <- list(rhobeg = 0.2, rhoend = 1e-4, maxfun = 5000)
TIGHT <- list(rhobeg = 0.05, rhoend = 1e-9, maxfun = 20000)

halton <- function(n, base) {
  sapply(seq_len(n), function(i) {
    value <- 0
    step <- 1 / base
    while (i > 0) {
      value <- value + step * (i %% base)
      i <- i %/% base
      step <- step / base
    }
    value
  })
}

# Rows are starts: relative standard deviations from 1e-2 to 1e2, correlations of any strength, some terms absent.
start_points <- function(q, correlated) {
  n_corr <- if (correlated) q * (q - 1) / 2 else 0
  u <- sapply(c(2, 3, 5, 7, 11, 13)[seq_len(q + n_corr)], function(base) halton(STARTS, base))
  sds <- 10^(4 * u[, seq_len(q)] - 2)
  sds[1, ] <- 1
  for (k in seq_len(q)) {
    sds[1 + k, ] <- 1
    sds[1 + k, k] <- 0
    sds[1 + q + k, ] <- 0
    sds[1 + q + k, k] <- 1
  }
  if (!correlated) return(sds)
  partial <- sin(pi * (u[, -seq_len(q), drop = FALSE] - 0.5))
  partial[1, ] <- 0
  t(sapply(seq_len(STARTS), function(s) {
    L <- diag(q)
    k <- 0
    for (i in 2:q) {
      left <- 1
      for (j in seq_len(i - 1)) {
        k <- k + 1
        L[i, j] <- partial[s, k] * sqrt(left)
        left <- left - L[i, j]^2
      }
      L[i, i] <- sqrt(max(left, 0))
    }
    L <- sds[s, ] * L
    L[lower.tri(L, diag = TRUE)]
  }))
}

working <- function(rows, names, correlated) {
  for (name in intersect(names, c("x", "z"))) {
    column <- rows[[name]]
    if (correlated && "1" %in% names) column <- column - mean(column)
    rows[[paste0("r", name)]] <- column / sqrt(mean(column^2))
  }
  rows
}

deviance_function <- function(formula, rows, reml) {
  parts <- strsplit(formula, " + (", fixed = TRUE)[[1]]
  correlated <- !grepl("||", parts[2], fixed = TRUE)
  names <- strsplit(sub(" *\\|.*", "", parts[2]), " + ", fixed = TRUE)[[1]]
  names <- setdiff(names, "0")
  rows <- working(rows, names, correlated)
  inside <- gsub("\\b([xz])\\b", "r\\1", parts[2])
  control <- lmerControl(check.nobs.vs.nRE = "ignore", check.conv.singular = "ignore", check.scaleX = "ignore")
  parsed <- lFormula(as.formula(paste0(parts[1], " + (", inside)), data = rows, REML = reml, control = control)
  list(f = do.call(mkLmerDevfun, c(parsed, list(control = control))), lower = parsed$reTrms$lower,
       q = length(names), correlated = correlated && length(names) > 1)
}

descend <- function(devfun, start) minqa::bobyqa(start, devfun$f, lower = devfun$lower, control = LOOSE)

polish <- function(devfun, end) {
  for (round in 1:5) {
    found <- minqa::bobyqa(end$par, devfun$f, lower = devfun$lower, control = TIGHT)
    gain <- end$fval - found$fval
    if (gain > 0) end <- found
    if (gain < 1e-9) break
  }
  end
}

# One parameter: every valley of a fine grid, and zero.
valleys <- function(devfun) {
  grid <- c(0, 10^seq(-4, 4, by = 0.05))
  values <- sapply(grid, devfun$f)
  n <- length(grid)
  lowest <- which(values <= c(Inf, values[-n]) & values <= c(values[-1], Inf))
  found <- lapply(lowest, function(k) {
    if (k == 1) return(list(par = 0, fval = values[1]))
    between <- optimize(function(u) devfun$f(exp(u)), log(pmax(grid[c(k - 1, min(k + 1, n))], 1e-6)), tol = 1e-9)
    list(par = exp(between$minimum), fval = between$objective)
  })
  lowest(found)
}

lowest_criterion <- function(devfun) {
  if (devfun$q == 1) return(valleys(devfun))
  starts <- start_points(devfun$q, devfun$correlated)
  ends <- lapply(seq_len(nrow(starts)), function(s) descend(devfun, starts[s, ]))
  ends <- ends[order(sapply(ends, `[[`, "fval"))]
  # Two end points in one valley differ by less than what the polish gains: the lowest three that differ are enough.
  values <- sapply(ends, `[[`, "fval")
  different <- head(ends[c(TRUE, diff(values) > 1e-5)], 3)
  lowest(lapply(different, polish, devfun = devfun))
}

lowest <- function(ends) ends[[which.min(sapply(ends, `[[`, "fval"))]]

main <- function(folder, out, further = NULL) {
  designs <- read.csv(file.path(folder, "designs.csv"), colClasses = c(rows = "character"))
  rows <- read.csv(file.path(folder, "rows.csv"), colClasses = c(sex = "character", f = "character"))
  rows <- split(rows, rows$id)
  starts <- if (is.null(further)) NULL else split(read.csv(further), ~id)
  sink <- file(out, "w")
  writeLines("id,rows,criterion,found_by", sink)
  for (i in seq_len(nrow(designs))) {
    id <- as.character(designs$id[i])
    devfun <- deviance_function(designs$formula[i], rows[[id]], designs$reml[i])
    extra <- starts[[id]]
    extra <- if (is.null(extra)) NULL else as.numeric(strsplit(extra$theta, " ")[[1]])
    found <- lowest_criterion(devfun)
    by <- "starts"
    if (!is.null(extra)) {
      more <- polish(devfun, list(par = extra, fval = devfun$f(extra)))
      if (more$fval < found$fval - 1e-7) {
        found <- more
        by <- "hierlmm"
      }
    }
    writeLines(sprintf("%s,%s,%s,%s", id, designs$rows[i], format(found$fval, digits = 15), by), sink)
  }
  close(sink)
}

arguments <- commandArgs(trailingOnly = TRUE)
do.call(main, as.list(arguments))
