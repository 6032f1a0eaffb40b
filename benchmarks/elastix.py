"""The parameters of the elastix runs that mmif is timed beside: a rigid multi-modal start."""

RECIPE = """
(FixedInternalImagePixelType "float") (MovingInternalImagePixelType "float")
(FixedImageDimension 3) (MovingImageDimension 3) (UseDirectionCosines "true")
(Registration "MultiResolutionRegistration") (Interpolator "LinearInterpolator")
(ResampleInterpolator "FinalBSplineInterpolator") (Resampler "DefaultResampler")
(FixedImagePyramid "FixedSmoothingImagePyramid")
(MovingImagePyramid "MovingSmoothingImagePyramid")
(Optimizer "AdaptiveStochasticGradientDescent") (Transform "EulerTransform")
(Metric "AdvancedMattesMutualInformation") (AutomaticScalesEstimation "true")
(AutomaticTransformInitialization "true")
(AutomaticTransformInitializationMethod "CenterOfGravity")
(HowToCombineTransforms "Compose") (NumberOfHistogramBins 32) (NumberOfResolutions 4)
(MaximumNumberOfIterations 500) (NumberOfSpatialSamples 4096)
(NewSamplesEveryIteration "true") (ImageSampler "RandomCoordinate") (WriteResultImage "false")
"""
