"""The NumPy oracle: every operation of pycnn in the fewest readable lines, forward and backward side by side.

Read it to learn how a convolutional network computes and learns; the tests read it to know what is right.
Nothing here is fast and nothing is clever: each function is its formula.

    conv          convolution, transposed convolution
    linear        the fully connected layer
    norm          batch, instance, layer and group normalization
    activations   ReLU and its kin, softmax
    pool          max, average, adaptive average, global average
    upsample      nearest, bilinear
    dropout       given a mask
    shape_ops     flatten, add, multiply, concatenate, slice
    losses        cross-entropy, NLL, MSE, L1, BCE with logits
    optim         SGD, Adam, AdamW, RMSprop, clipping by norm
    regularizers  L1, L2, elastic net

Conventions
- Images are (n, c, h, w): batch, channels, height, width. The memory layout does not matter here.
- `dy` is the gradient of the loss with respect to the output `y`, and a backward function returns the
  gradients with respect to the inputs: `dx`, and `dweight`, `dbias` where there are parameters. An absent
  parameter is None, and so is its gradient.
- A backward function takes what the forward took and recomputes what it needs: clearer than a cache.
- Everything is computed in the dtype that comes in; as an oracle it is fed float64.
"""
