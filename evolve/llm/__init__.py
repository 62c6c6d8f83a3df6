"""Language models: asking them within deadlines and budgets, and applying what they answer."""
