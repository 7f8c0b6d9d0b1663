"""The networks of pycnn.models in PyTorch, with the names that their state dicts have elsewhere."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Convolutions with batch normalization, ReLU between and after them, and a shortcut around them."""

    def __init__(self, convolutions, downsample=None):
        super().__init__()
        for number, convolution in enumerate(convolutions, 1):
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", nn.BatchNorm2d(convolution.out_channels))
        self.count = len(convolutions)
        self.downsample = downsample

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.count:
                y = torch.relu(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def conv(ic, oc, k, stride=1, groups=1, bias=False):
    return nn.Conv2d(ic, oc, k, stride, k // 2, groups=groups, bias=bias)


def basic(ic, oc, stride):
    return [conv(ic, oc, 3, stride), conv(oc, oc, 3)]


def bottleneck(ic, oc, stride):
    return [conv(ic, oc // 4, 1), conv(oc // 4, oc // 4, 3, stride), conv(oc // 4, oc, 1)]


class ResNet(nn.Module):
    def __init__(self, block, widths, depths, num_classes, in_channels):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, 64, 7, 2), nn.BatchNorm2d(64)
        ic = 64
        for stage, (oc, depth) in enumerate(zip(widths, depths, strict=True), 1):
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 1 and number == 0 else 1
                fit = None if ic == oc and stride == 1 else nn.Sequential(conv(ic, oc, 1, stride), nn.BatchNorm2d(oc))
                blocks.append(Residual(block(ic, oc, stride), fit))
                ic = oc
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(ic, num_classes)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def resnet18(num_classes=1000, in_channels=3):
    return ResNet(basic, (64, 128, 256, 512), (2, 2, 2, 2), num_classes, in_channels)


def resnet34(num_classes=1000, in_channels=3):
    return ResNet(basic, (64, 128, 256, 512), (3, 4, 6, 3), num_classes, in_channels)


def resnet50(num_classes=1000, in_channels=3):
    return ResNet(bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3), num_classes, in_channels)


class Subsample(nn.Module):
    """Every second pixel, between as many channels of zeros as there are."""

    def forward(self, x):
        x = x[:, :, ::2, ::2]
        zeros = x.new_zeros(x.shape[0], x.shape[1] // 2, *x.shape[2:])
        return torch.cat([zeros, x, zeros], 1)


class CifarResNet(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, 16, 3), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Residual(basic(16, 16, 1)) for _ in range(3)))
        self.layer2 = nn.Sequential(Residual(basic(16, 32, 2), Subsample()), *self.more(32))
        self.layer3 = nn.Sequential(Residual(basic(32, 64, 2), Subsample()), *self.more(64))
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def more(channels):
        return [Residual(basic(channels, channels, 1)) for _ in range(2)]

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def resnet20_cifar(num_classes=10, in_channels=3):
    return CifarResNet(num_classes, in_channels)


class VGG(nn.Module):
    def __init__(self, channels, num_classes, in_channels):
        super().__init__()
        layers = []
        for oc in channels:
            if oc:
                layers += [conv(in_channels, oc, 3, bias=True), nn.BatchNorm2d(oc), nn.ReLU()]
                in_channels = oc
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = [nn.Linear(in_channels * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, num_classes))

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


def vgg11_bn(num_classes=1000, in_channels=3):
    return VGG((64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0), num_classes, in_channels)


class Inverted(nn.Module):
    def __init__(self, ic, oc, stride, expansion):
        super().__init__()
        wide = ic * expansion
        first = [] if expansion == 1 else [self.activated(conv(ic, wide, 1))]
        depthwise = self.activated(conv(wide, wide, 3, stride, groups=wide))
        self.conv = nn.Sequential(*first, depthwise, conv(wide, oc, 1), nn.BatchNorm2d(oc))
        self.adds = stride == 1 and ic == oc

    @staticmethod
    def activated(convolution):
        return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6())

    def forward(self, x):
        return self.conv(x) + x if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        layers = [Inverted.activated(conv(in_channels, 32, 3, 2)), Inverted(32, 16, 1, 1)]
        ic = 16
        for oc, count, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
            for number in range(count):
                layers.append(Inverted(ic, oc, 1 if number else stride, 6))
                ic = oc
        self.features = nn.Sequential(*layers, Inverted.activated(conv(320, 1280, 1)))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(num_classes=1000, in_channels=3):
    return MobileNetV2(num_classes, in_channels)


class Twice(nn.Module):
    def __init__(self, ic, oc):
        super().__init__()
        layers = [conv(ic, oc, 3), nn.BatchNorm2d(oc), nn.ReLU(), conv(oc, oc, 3), nn.BatchNorm2d(oc), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x):
        return self.double_conv(x)


class Halved(nn.Module):
    def __init__(self, ic):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), Twice(ic, 2 * ic))

    def forward(self, x):
        return self.maxpool_conv(x)


class Doubled(nn.Module):
    def __init__(self, ic):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(ic, ic // 2, 2, 2), Twice(ic, ic // 2)

    def forward(self, x, skip):
        x = self.up(x)
        x = F.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]))
        return self.conv(torch.cat([skip, x], 1))


class UNet(nn.Module):
    def __init__(self, num_classes, in_channels, width):
        super().__init__()
        self.inc = Twice(in_channels, width)
        for level in range(1, 5):
            setattr(self, f"down{level}", Halved(width * 2 ** (level - 1)))
        for level in range(1, 5):
            setattr(self, f"up{level}", Doubled(width * 2 ** (5 - level)))
        self.outc = nn.Module()
        self.outc.conv = nn.Conv2d(width, num_classes, 1)

    def forward(self, x):
        kept = [self.inc(x)]
        for level in range(1, 5):
            kept.append(getattr(self, f"down{level}")(kept[-1]))
        x = kept.pop()
        for level in range(1, 5):
            x = getattr(self, f"up{level}")(x, kept.pop())
        return self.outc.conv(x)


def unet(num_classes=2, in_channels=3, base_width=64):
    return UNet(num_classes, in_channels, base_width)


def mnist_cnn(num_classes=10, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )
