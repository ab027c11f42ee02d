//! The LLaMA: definition, initialisation, weights, and the engine that trains it.
