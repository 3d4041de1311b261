// Replaces CuPy's header: complex numbers are not needed.
#pragma once
