/*
 * What an update takes from its options, computed in double and rounded to fp32 once a call: the same for every backend, because ranks on
 * devices and ranks on CPUs continue each other's runs bit for bit. Formulas: docs/optimizers.md.
 */
#ifndef ZINF_DEVICE_UPDATE_H
#define ZINF_DEVICE_UPDATE_H

#include <math.h>

#include "device/ops.h"

struct zinf_coefficients {
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    float step_size;   /* lr / (1 - beta1^t) */
    float root_factor; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float l2;     /* weight decay that is added to the gradient; this or shrink is 0 */
    float shrink; /* lr * weight decay, decoupled */
    float learning_rate, momentum, one_minus_dampening, gradient_scale;
    bool first_step, nesterov;
};

static inline struct zinf_coefficients zinf_coefficients_of(const struct zinf_update *o)
{
    const bool decoupled =
        o->optimizer == ZINF_LION || (o->optimizer == ZINF_ADAM && o->decoupled_decay);
    double correction1 = 1.0, correction2 = 1.0;
    struct zinf_coefficients c;
    if (o->bias_correction) {
        correction1 = 1.0 - pow(o->beta1, (double)o->step);
        correction2 = 1.0 - pow(o->beta2, (double)o->step);
    }
    /* 1 - beta before rounding: 1 - (float)0.999 is 1.3e-5 relative off, and v is made of it */
    c.beta1 = (float)o->beta1;
    c.one_minus_beta1 = (float)(1.0 - o->beta1);
    c.beta2 = (float)o->beta2;
    c.one_minus_beta2 = (float)(1.0 - o->beta2);
    c.step_size = (float)(o->learning_rate / correction1);
    c.root_factor = (float)(1.0 / sqrt(correction2));
    c.epsilon = (float)o->epsilon;
    c.l2 = decoupled ? 0.0f : (float)o->weight_decay;
    c.shrink = decoupled ? (float)(o->learning_rate * o->weight_decay) : 0.0f;
    c.learning_rate = (float)o->learning_rate;
    c.momentum = (float)o->momentum;
    c.one_minus_dampening = (float)(1.0 - o->dampening);
    c.gradient_scale = o->gradient_scale;
    c.first_step = o->step == 1;
    c.nesterov = o->nesterov;
    return c;
}

#endif
