//! The candle model as a source of losses and gradients.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use gauntlet_model::llama::Llama;
use gauntlet_model::{Layout, LlamaConfig};

pub struct CandleModel {
    pub model: Llama,
    pub layout: Layout,
    vars: HashMap<String, Var>,
}

impl CandleModel {
    pub fn new(config: &LlamaConfig, theta: &[f32]) -> Self {
        let layout = Layout::new(config);
        let vars: HashMap<String, Var> = layout
            .params()
            .iter()
            .map(|p| {
                let t = Tensor::from_slice(&theta[p.range()], p.shape.as_slice(), &Device::Cpu).unwrap();
                (p.name.clone(), Var::from_tensor(&t).unwrap())
            })
            .collect();
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let model = Llama::new(config, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap();
        Self { model, layout, vars }
    }

    pub fn logits(&self, ids: &[u32], batch: usize, seq: usize) -> Vec<f32> {
        let ids = Tensor::from_slice(ids, (batch, seq), &Device::Cpu).unwrap();
        self.model.forward(&ids, None).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Mean loss and the gradients in θ's order.
    pub fn loss_and_grad(&self, ids: &[u32], targets: &[u32], batch: usize, seq: usize) -> (f64, Vec<f32>) {
        let ids = Tensor::from_slice(ids, (batch, seq), &Device::Cpu).unwrap();
        let loss = self.model.loss(&ids, targets).unwrap();
        let store = loss.backward().unwrap();
        let mut grads = vec![0.0; self.layout.total()];
        for p in self.layout.params() {
            let grad = store.get(&self.vars[&p.name]).unwrap_or_else(|| panic!("{} has no gradient", p.name));
            grads[p.range()].copy_from_slice(&grad.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        (f64::from(loss.to_scalar::<f32>().unwrap()), grads)
    }
}
