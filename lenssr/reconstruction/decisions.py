"""Every threshold that decides something about a lens, with its unit and where it comes from.

"theory": follows from statistics. "table": a printed benchmark shows what it does. "chosen": a judgement,
with the reason. Thresholds of single flags stand beside these in `lenssr.reconstruction.verdict`;
constants that only set a numerical accuracy stand where they are used.
"""

# ---------------------------------------------------------------- shared by searches and flags

# Reduced chi2 above which a fit does not explain its pixels. Chosen: 10 % more noise than the errors say.
BAD_CHI2 = 1.2
# Excess of chi2, or of -2 ln(evidence), below which a second lens cannot be told from the best. Theory: 5
# sigma.
SECOND_MODE = 25.0
# Sigma of a pixel above which the lensed source makes it one of the arcs. Theory: 3 sigma.
ARC_SIGMA = 3.0
# Ratio of the sky's rms to the given errors above which the errors are too small. Chosen: resampling alone
# makes it smaller than 1, an error plane without the sky's photons larger.
ERRORS_TOO_SMALL = 1.3

# Einstein radius in pixels below which arcs are not separated. Theory: Nyquist.
RESOLVED_RING = 2.0

# ---------------------------------------------------------------- other objects in the field

# Chosen on simulated lenses and a few HST fields. What each does when 30 % lower and higher is in the table
# docs/benchmarks/field_masks.txt: ARC_STRETCH, BEYOND_ARCS and IMAGE_REACH decide how much light of others is
# kept, IMAGE_REACH, INNER_FIELD and COUNTER_IMAGE_RADIUS hide images when lower, the others hardly matter.

# A segment is an arc if its standard deviation along the circle about the lens is this many times that
# across, and this many FWHM of the PSF; if it lies this many FWHM from the centre, and has this signal to
# noise. Chosen (table): as low as 1.2 a galaxy may pass for an arc.
ARC_STRETCH, ARC_LENGTH_FWHM, ARC_RADIUS_FWHM, ARC_SIGNAL = 1.6, 0.8, 1.5, 8.0
# Distance from the centre, in FWHM of the PSF, within which a segment may be anything. Chosen.
CORE_FWHM = 2.0
# Largest radius of an image over that of the arcs, where there are arcs. Chosen (table): at 1.7 a quarter of
# the light of others is kept.
BEYOND_ARCS = 1.3
# Largest radius of an image over the side of the field, where there are none. Chosen (table): images lie
# within the Einstein radius plus the offset of the source; at 0.28 some are hidden.
IMAGE_REACH = 0.36
# Signal to noise, and radius over the side of the field, above which an image has to have a counter-image.
# Chosen.
BRIGHT_IMAGE, INNER_FIELD = 20.0, 0.2
# Cosine of the angle about the centre beyond which another segment is the counter-image, its largest radius
# and its least signal over those of the image. Chosen.
ACROSS_COSINE, COUNTER_IMAGE_RADIUS, COUNTER_IMAGE_SIGNAL = -0.5, 1.2, 0.02
# Significance of the peak of a segment, in sigma of the smoothed image, above which it is masked. Chosen.
OBJECT_PEAK = 4.5

# ---------------------------------------------------------------- the search for a lens

# Distance in arcsec of an unknown lens from its light, or from the image centre where no light is fitted.
# Chosen: several times the offsets of mass and light that are measured.
CENTRE_BOUND = 0.3
# Standard deviation of each component of the ellipticity of an unknown lens around that of its light. Chosen:
# wide in axis ratio (a fifth of the lenses of Tan et al. 2024, arXiv:2311.09307, are rounder or flatter by
# more than 0.15).
FOLLOWS_LIGHT = 0.12
# Reduced chi2 of binned pixels above which the best of the Sérsics does not say where the lens is. Chosen.
HOPELESS_START = 1.5
# Difference of ln(posterior) of two trial lenses below which a free-form source is looked for behind both.
# Chosen: the coarse grid misjudges them by tens.
RIVAL_TRIAL = 30.0
# Most trial lenses beside lens light behind which one is looked for. Chosen: each takes some five seconds;
# the fourth is right for HST F600LP.
LOOKS = 5
# Median chi2 of the arcs' binned pixels, over that of noise, above which no trial lens is believed. Chosen:
# right ones have 0.5 to 1.2, wrong ones 2.2 to 14 (nine simulated galaxies).
TRIAL_MISFIT = 1.8
# Half-light radius of a source over the Einstein radius above which a trial lens is odd. Chosen: those of 26
# real lenses have 0.07 to 0.25 behind the published lens, or more where something else shines in the field,
# 0.4 and more behind lenses that hardly change what they show.
WIDEST_SOURCE = 0.33
# Share of the light of arcs within the Einstein radius above which a trial lens is odd. Theory: less than
# half where the whole source shines and nothing else does; chosen: a fifth may be what is left of a galaxy,
# or of neighbours.
MOST_OF_ARCS = 0.8
# What odd lenses lose in ln(posterior), times the square of ln(how far beyond the two above). Chosen on 41
# images of 27 real lenses, among a hundred to hard limits: what speaks for odd ones are hundreds.
WIDE, NEAR = 300.0, 4000.0
# Two lenses are one mode if their Einstein radii differ by less than this share, and their ellipticities and
# shears by less than this. Chosen: well above the errors of either, well below what separates basins of chi2.
SAME_RADIUS, SAME_SHAPE = 0.02, 0.1
# Share of the best coarse chi2 by which another start may be worse and still be fitted to all pixels, and how
# many of them are. Chosen: binned pixels misjudge chi2 by as much.
RIVAL_SHARE, RIVALS = 0.3, 2
# Standard deviations from the network's estimate, all seven parameters together, within which a fit that
# leaves more than noise is believed: overall, and where a Sérsic leaves arcs. Theory: chi of 7 degrees of
# freedom exceeds 5 with a probability of 7e-4, 3 with one of a quarter. The second was chosen after two
# lenses (BroadLenses, seed 11).
AGREES, AGREES_WITH_ARCS_LEFT = 5.0, 3.0
# Excess of the arcs' chi2, in its standard deviations, above which a Sérsic leaves arcs. Theory: 4 sigma.
ARCS_LEFT_SIGMA = 4.0
# Reduced chi2 of the arcs above which a Sérsic is never believed. Chosen after one lens (BroadLenses, seed
# 13).
HOPELESS_CHI2 = 15.0
# Lenses are two modes if any parameter differs by more than this many combined errors. Theory: 3 sigma.
APART_SIGMA = 3.0
# Other modes are looked for this many errors away along the direction that data determine worst, but no
# farther than this many widths of the priors. Theory: 5 sigma; chosen: the width itself.
MODE_START_SIGMA, MODE_START_REACH = 5.0, 1.0

# Relative error of the Einstein radius above which a result is not secure. Theory: right is within 5 %, three
# of it. And above which it is not ok. Chosen: faint images are right within errors as large.
SECURE_ERROR, PROBABLE_ERROR = 0.05 / 3, 0.1

# Distance in arcsec of a fitted lens from the light of its galaxy above which it is doubted. Chosen after 12
# real lenses: right ones had 0.01 to 0.07, and one 0.17. Of thirteen fits beyond it ten were wrong, but both
# bands of an HST lens that is right lie there too.
OFF_LIGHT = 0.12

# Difference of the ellipticities of a fitted lens and of its light above which it is doubted. Chosen: 2.5
# times FOLLOWS_LIGHT; of some twenty real lenses wrong ones had 0.4 and more, right ones less.
UNLIKE_LIGHT = 0.3

# Distance between two parts of the light of a lens, over the Einstein radius, above which one of them is none
# of it. Theory: there it lies nearer to the arcs. Of some twenty real lenses one had 0.46, others 0.15.
LIGHTS_APART = 0.5

# ---------------------------------------------------------------- the trust region of a lens

# Share of the parametric Einstein radius by which it may change, and the width of its prior. Chosen: farther
# off lie lenses that demagnify, behind which a ring is the image of a ring; arcs determine it ten times
# better.
RADIUS_REACH, RADIUS_WIDTH = 0.1, 0.03
# The same where the parametric fit is in doubt. Chosen: lenses behind clumpy galaxies are off by 6-9 %.
DOUBTED_RADIUS_REACH, DOUBTED_RADIUS_WIDTH = 0.3, 0.1
# How often the trust region may be widened by as much again on one grid. Chosen.
EXPANSIONS = 2
# Mean squared prior z-score above which a lens outside its first trust region is refused. Chosen after HST
# F600LP, which it lets go, and Euclid VIS, which it does not: not a rule yet.
UNLIKELY_LENS = 1.5

# ---------------------------------------------------------------- several bands

# Reduced chi2 of the arcs of a band above which the lens of all bands does not explain them, and factor by
# which it has to be above that behind a lens of its own. Chosen: the first is that of bad_arc_chi2.
BAD_BAND_CHI2, WORSE_BAND = 1.4, 1.2
# Pixels by which an image may lie off its WCS before it is said. Chosen: archives are right to about one.
POINTING_OFF = 1.5

# ---------------------------------------------------------------- the free-form source

# Sigma of a pixel above which the parametric source, and what it leaves in 3 x 3 pixels, places the grid; and
# how many times the grid's half side away the second may lie. Chosen (the second after HST F475X).
GRID_EDGE_SIGMA = 0.25
GRID_LEFT_SIGMA, GRID_LEFT_REACH = 5.0, 2.0
# Beside lens light, distance from the middle of a source, along either axis, over the Einstein radius, beyond
# which its grid ends; and the sigma above which a brighter pixel says no more about where that middle is.
# Chosen after 19 real lenses: fits whose grids ended within 1.2 were right, but for two; of twelve on larger
# ones, whose sources took the halo of the galaxy, eight were wrong or doubtful. Sources of real lenses have
# half-light radii of 0.07 to 0.25.
LARGEST_SOURCE, GRID_MOST_SIGMA = 1.0, 30.0
# Standard deviations of chi2 above its expectation from which a parametric fit does not explain the data.
# Theory.
PARAMETRIC_EXCESS_SIGMA = 2.0
# Difference of ln(evidence) below which the simpler of two sources is taken. Theory: a factor of e.
SAME_EVIDENCE = 1.0
# Gain in chi2 per determined node above which a free-form source explains what the parametric one does not,
# so that weights are taken from it. Theory: noise alone gives 1; chosen: three times that.
BETTER_THAN_PARAMETRIC = 3.0

# ---------------------------------------------------------------- the network's source

# Shift of the sky, in its noise, from which it is subtracted anew and the source drawn again. Chosen.
SKY_SHIFT = 0.05
# Least share of the pixels that has to be dark for the sky to be measured there alone. Chosen.
LEAST_DARK = 0.05
# Largest weight of the network's drawing in the mean with what Gauss-Newton steps find, without and with a
# PSF. Chosen: scores depend on it by 0.1 dB.
DRAWING_SHARE, DRAWING_SHARE_WITH_PSF = 0.4, 0.3
# Factor by which chi2 of held-back pixels may grow in fine-tuning before a warning. Chosen: few pixels
# scatter.
FINE_TUNING_WORSE = 1.01

# ---------------------------------------------------------------- the PSF of the output

# Output pixels across the FWHM of a PSF, below which they do not sample it. Theory: Nyquist, nearly.
PIXELS_ACROSS = 2.0
