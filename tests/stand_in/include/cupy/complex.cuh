// In place of CuPy's: complex numbers are not needed.
#pragma once
