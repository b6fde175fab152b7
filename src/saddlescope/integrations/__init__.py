"""SAM inside the programs of others: Lightning, Hugging Face, accelerate, and code written for davda54's class."""
