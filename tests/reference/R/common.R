# Data, the recorded calls, the polished optimum of lme4, and the comparison of what is made now with what is frozen.

suppressMessages({
  library(jsonlite)
  library(lme4)
  library(nlme)
  library(splines)
})

TOLERANCE <- 1e-5
FOLDER <- NULL   # of the tests, with the frozen files
FOLDERS <- NULL  # below it, by the first part of a path ("gee/...", a fit of lme4 has none)
OUT <- NULL      # where the files made now are written, in the same folders
RESULTS <- list()

# Data ---------------------------------------------------------------------------------------------------------------

# Global, because update() and emmeans look the data of a fit up by name.
load_data <- function(folder) {
  levels <- fromJSON(file.path(folder, "levels.json"))
  for (name in names(levels)) {
    data <- read.csv(file.path(folder, paste0(name, ".csv")), check.names = FALSE)
    for (column in names(levels[[name]])) {
      data[[column]] <- factor(as.character(data[[column]]), levels = levels[[name]][[column]])
    }
    assign(name, data, envir = globalenv())
  }
}

need <- function(name) {
  if (exists(name, envir = globalenv(), inherits = FALSE)) return(get(name, envir = globalenv()))
  stop(structure(list(message = paste(name, "may not ship; set HIERLMM_DATA"), call = NULL),
                 class = c("absent", "error", "condition")))
}

placed <- function(path) {
  parts <- strsplit(path, "/", fixed = TRUE)[[1]]
  if (length(parts) == 1) parts <- c("lme4", parts)
  file.path(FOLDERS[[parts[1]]], parts[2])
}

listed <- function(folder, pattern = "[.]json$") {
  names <- list.files(file.path(FOLDER, FOLDERS[[if (folder == "") "lme4" else folder]]), pattern)
  if (folder == "") names else paste0(folder, "/", names)
}

# Calls --------------------------------------------------------------------------------------------------------------

# The call at the beginning of a recorded text (the shortest beginning that is R), with its arguments named.
recorded_call <- function(text) {
  for (end in gregexpr(")", text, fixed = TRUE)[[1]]) {
    parsed <- tryCatch(parse(text = substr(text, 1, end)), error = function(e) NULL)
    if (!is.null(parsed)) break
  }
  call <- match.call(eval(parsed[[1]][[1]]), parsed[[1]])
  if (!is.null(call$data)) need(as.character(call$data))
  call
}

# lme4's fit moved to the optimum: Newton steps on the profiled deviance, zero variances held.
polish <- function(call) {
  call$control <- quote(lme4::lmerControl(check.conv.singular = "ignore", check.conv.grad = "ignore",
                                          check.conv.hess = "ignore", check.scaleX = "ignore"))
  fit <- eval(call, globalenv())
  devfun <- update(fit, devFunOnly = TRUE)
  theta <- getME(fit, "theta")
  free <- !(getME(fit, "lower") == 0 & theta < 1e-4)
  theta[!free] <- 0
  deviance <- function(x) devfun(replace(theta, free, x))
  for (step in seq_len(if (any(free)) 20 else 0)) {
    gradient <- numDeriv::grad(deviance, theta[free])
    if (max(abs(gradient)) < 1e-8) break
    move <- solve(numDeriv::hessian(deviance, theta[free]), gradient)
    if (deviance(theta[free] - move) > deviance(theta[free]) + 1e-9) break
    theta[free] <- theta[free] - move
  }
  value <- devfun(theta)
  call[[1]] <- quote(lme4::lFormula)
  terms <- eval(call, globalenv())$reTrms
  mkMerMod(environment(devfun), list(par = theta, fval = value, conv = 0, message = ""), terms, fit@frame, mc = fit@call)
}

# Comparison ---------------------------------------------------------------------------------------------------------

count <- function(x) if (is.list(x)) sum(vapply(x, count, 0)) else sum(is.numeric(x))

# The frozen numbers with those made now in their places, and how far each vector is from the frozen one
# (relative to its largest number).
place <- function(old, new, where) {
  if (is.null(old)) return(list(value = old, gaps = data.frame(where = paste(where, "(not frozen)"), gap = Inf, n = 1)))
  values <- unlist(new)
  if (is.null(names(values))) {
    before <- unlist(old)
    if (length(before) != length(values) || is.numeric(before) != is.numeric(values)) {
      return(list(value = old, gaps = data.frame(where = paste(where, "(length)"), gap = Inf, n = length(values))))
    }
    if (!is.numeric(values)) gap <- if (identical(before, values)) 0 else Inf
    else if (length(values)) gap <- max(abs(before - values)) / max(abs(before), 1e-3)
    else gap <- 0
    filled <- if (is.list(old)) relist(values, old) else values
    return(list(value = filled, gaps = data.frame(where, gap, n = sum(is.numeric(values)) * length(values))))
  }
  gaps <- NULL
  for (key in if (is.null(names(new))) seq_along(new) else names(new)) {
    if (is.null(new[[key]])) next
    known <- if (is.character(key)) key %in% names(old) else key <= length(old)
    part <- place(if (known) old[[key]], new[[key]], paste0(where, "/", key))
    if (known) old[[key]] <- part$value
    gaps <- rbind(gaps, part$gaps)
  }
  list(value = old, gaps = gaps)
}

say <- function(path, remade, total, gap, where) {
  RESULTS[[path]] <<- data.frame(path, remade, total, gap, where)
  note <- if (is.na(gap)) paste("skipped:", where) else if (gap > TOLERANCE) where else ""
  cat(sprintf("%-50s %5d of %5d numbers  %8.1e  %s\n", path, remade, total, gap, note))
}

# Make the numbers of a file anew: `make` gets what is frozen and gives any part of it, by the same keys.
remake <- function(path, make) {
  old <- fromJSON(file.path(FOLDER, placed(path)), simplifyVector = FALSE)
  total <- count(old)
  tryCatch({
    new <- suppressWarnings(suppressMessages(make(old)))
    new <- fromJSON(toJSON(new, digits = NA, auto_unbox = TRUE, na = "null", null = "null"), simplifyVector = FALSE)
    both <- place(old, new, "")
    worst <- both$gaps[which.max(both$gaps$gap), ]
    say(path, sum(both$gaps$n), total, worst$gap, worst$where)
    target <- file.path(OUT, placed(path))
    dir.create(dirname(target), showWarnings = FALSE, recursive = TRUE)
    writeLines(toJSON(both$value, digits = NA, auto_unbox = TRUE, null = "null", pretty = 1), target)
  }, absent = function(e) say(path, 0, total, NA, conditionMessage(e)),
  error = function(e) say(path, 0, total, Inf, paste("failed:", conditionMessage(e))))
}

rows <- function(table) {
  table <- as.data.frame(table)
  table[] <- lapply(table, function(column) if (is.factor(column)) as.character(column) else column)
  lapply(seq_len(nrow(table)), function(i) as.list(table[i, , drop = FALSE]))
}

first5 <- function(x) unname(head(as.numeric(x), 5))
