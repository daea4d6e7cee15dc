"""Image classification: ResNet and its variants, DenseNet, MobileNet, VGG."""
