r"""Ordinary solutions, as policies write them. None of the four rules covers any of this.

Lines that come near to a rule on purpose: `\boxed{1}` in a sentence, `Step 3:` headings, brackets,
angle brackets, `[Question]` in the middle of a line, intervals, HTML, JSON, chat transcripts.
"""

LATEX = (
    r"""Step 1: The area of the circle is $A = \pi r^2$.

Step 2: With $r = 3$ this gives $A = 9\pi \approx 28.27$.

Step 3: So the answer is \boxed{9\pi}.""",
    r"""We have \[ x^2 - 5x + 6 = 0 \] and therefore $(x-2)(x-3) = 0$.

The roots are $x_1 = 2$ and $x_2 = 3$; the smaller one is $\boxed{2}$.""",
    r"""By Pythagoras, $c = \sqrt{a^2 + b^2} = \sqrt{3^2 + 4^2} = 5$.
Hence the hypotenuse is 5 cm long.""",
    r"""The number of triangles in the figure is \boxed{1}, because the others are squares.""",
    r"""Since $\cos 0 = 1$, the limit is \boxed{1}.

Therefore the correct choice is (B).""",
    r"""$$
\int_0^1 x^2 \, dx = \left[ \frac{x^3}{3} \right]_0^1 = \frac{1}{3}
$$

The shaded region therefore has area $\tfrac13$.""",
    r"""\begin{align}
a + b &= 10 \\
a - b &= 4
\end{align}

Adding both equations gives $2a = 14$, so $a = 7$ and $b = 3$.""",
    r"""The matrix is
\[ M = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} \]
and its determinant is $\det M = 1\cdot 1 - 0\cdot 0 = 1$.""",
    r"""$P(A \mid B) = \frac{P(A \cap B)}{P(B)} = \frac{0.2}{0.5} = 0.4$: dependent events.""",
    r"""Let $f : [0, 1] \to \mathbb{R}$ with $f(x) = |x - \tfrac12|$.

On $[0, 1]$ the minimum is $0$ at $x = \tfrac12$ and the maximum is $\tfrac12$.""",
    r"""The sum is $\sum_{k=1}^{n} k = \frac{n(n+1)}{2}$; for $n = 100$ it is $5050$.""",
    r"""As $n \to \infty$, $\left(1 + \frac1n\right)^n \to e \approx 2.71828$.""",
    r"""From the picture $\angle ABC = 90^\circ$ and $\angle BAC = 35^\circ$, so
$\angle ACB = 180^\circ - 90^\circ - 35^\circ = 55^\circ$.""",
    r"""We get $\boxed{\text{No solution}}$ because $0 \cdot x = 1$ is impossible.""",
    r"""$\langle u, v \rangle = u_1 v_1 + u_2 v_2 = 0$, hence $u \perp v$.""",
    r"""So $x \in (-\infty, 0] \cup [1, \infty)$, i.e. $x \notin (0, 1)$.""",
    r"""$|x| < 1 \iff -1 < x < 1$, and $||a| - |b|| \le |a - b|$ always holds.""",
    r"""$\{1, 2, 3\} \setminus \{2\} = \{1, 3\}$ and $2^{\{0,1\}}$ has four elements.""",
    r"""The final answer is $\boxed{0}$ or $\boxed{1}$ by parity; here $n$ is odd: \boxed{1}""",
    r"""Answer: \(\boxed{\dfrac{7}{12}}\)""",
)

STEPS = (
    """Step 1: Read the two values off the chart: 12 and 30.
Step 2: Their difference is 30 - 12 = 18.
Step 3: The answer is 18.""",
    """Step 0: First look at the legend.

Step 1: Red is 2019.

Step 2: 10 bars are red.""",
    """### Step 1: Identify the shapes
There are three circles and one square.

### Step 2: Count the sides
A square has 4 sides.

### Step 3: Answer
4""",
    """**Step 1:** The clock's short hand points to 7.
**Step 2:** The long hand points to 12.
**Step 3:** It is 7:00.""",
    """1. The line passes through (0, 1) and (2, 5).
2. Its slope is (5 - 1) / (2 - 0) = 2.
3. So y = 2x + 1.""",
    """(a) The bar for May is tallest.
(b) It stands at 45.
(c) 45 is 15 more than the bar for April.""",
    """- Four apples are on the table
- Two more are in the basket
- 4 + 2 = 6""",
    """* north: 3 km
* east: 4 km
* distance: 5 km""",
    """Step 1.0
Version numbers in headings are not verdicts.

Step 1.1
Nor is this one.""",
    """Step 1: 10 + 5 = 15
Step 2: 15 / 3 = 5
Step 3: 5""",
    """Step 2: 1 apple is left over.
Step 3: 0 pears are left over.
Step 4: 1/2 of the cake is gone.""",
    """STEP ONE: look at the picture.
STEP TWO: answer the question.""",
    """First, the ramp is 10 m long. Second, it rises 1 m. Third, the grade is therefore 10 %.""",
    """Step 3: as in Step 2: 1 is a root, so divide by (x - 1).""",
    """Summary of the steps above:
Step 1 -> correct reading
Step 2 -> correct formula
Step 3 -> 1""",
    """i) a = 1
ii) b = 0
iii) a + b = 1""",
    """Step 10: 0.5 is the midpoint.
Step 11: 1.25 is a quarter more than 1.""",
    """Step 1: 1, 1, 2, 3, 5, 8: the Fibonacci numbers.
Step 2: 01:30 is half past one.""",
)

CODE = (
    """```python
def area(w: int, h: int) -> int:
    if w < 0 or h < 0:
        raise ValueError(f"negative: {w=} {h=}")
    return w * h

print(area(3, 4))
```

The program prints 12.""",
    """```c
#include <stdio.h>
int main(void) { int a[2] = {0, 1}; printf("%d\\n", a[0] | a[1]); return 0; }
```
prints `1`.""",
    """In C++, `std::vector<std::pair<int, int>> v; v.push_back({0, 1});` has size 1.""",
    """`if (a<b && c>d) { x <<= 1; y |= 0x0F; }` doubles x.""",
    """The shell line `cat < in.txt | sort | uniq -c > out.txt` counts lines.""",
    """SELECT name FROM t WHERE [Order] <> 0 AND [Count] >= 1;
This returns the two rows that are highlighted.""",
    """The regex `^\\[(\\w+)\\]$` matches `[Question]` but not `Question`.""",
    """let m = xs |> List.map (fun x -> x + 1) |> List.filter (fun x -> x <> 0) in m""",
    """In Haskell: `f <$> Just 1 <*> [0, 1]` does not type-check, `(+) <$> [0, 1] <*> [1]` does.""",
    """for (let i = 0; i < n; i++) console.log(`<${tags[i]}>`);
With n = 2 this logs two lines.""",
    """The LaTeX source `\\frac{a}{b}` and the template `{{ name }}` and `{% if x %}` are text.""",
    """The diff is
```diff
-    return [0, 1]
+    return [1, 0]
```
so the first label flips.""",
    """The INI file reads
```ini
[server]
port = 8000
[client]
retries = 3
```
and has 2 sections.""",
    """In Rust, `Option<Box<dyn Fn(&str) -> u8>>` has one type parameter list inside another.""",
    """x = a[i][j]; y = b[[0, 1]]; z = {**x, "k": [y]}""",
    """`printf("%s|%s", "<", ">")` writes the five... no, three characters `<|>`.""",
    """The assembler line `mov eax, [ebx+4*ecx]` reads memory.""",
    r"""C:\Users\ann\pic_1.png is the file; the regex `\d{1,3}\|` finds `42|`.""",
)

TABLES_AND_MARKUP = (
    """| shape | colour | count |
|-------|:------:|------:|
| circle | red | 1 |
| square | blue | 0 |

One red circle.""",
    """a | b | a|b
--|---|----
0 | 0 | 0
0 | 1 | 1
1 | 1 | 1""",
    """The page has `<div class="q"><p>1 &lt; 2</p></div>`, so one paragraph.""",
    """<table><tr><td>0</td><td>1</td></tr></table>
The table has two cells.""",
    """<p>First, <b>read</b> the axis.</p>
<p>Then <i>add</i>: 2 + 2 = 4.</p>""",
    """<svg width="10" height="10"><circle r="5"/></svg> draws a circle.""",
    """<!-- a comment --> The comment is not shown.""",
    """See <https://example.org/a?b=[1]&c={2}> and [the figure](fig.png "Fig. 1").""",
    """> The question says: "how many".

So we count: 7.""",
    """- [x] read the chart
- [ ] check the unit
- [x] answer""",
    """As shown in <image1> and <image 2>, the left tank is fuller.""",
    """In <image1>, A is at (0, 1); in <image2>, A is at (1, 0).""",
    """<img src="a.png"> is the tag for an image, <image-set> is a CSS function.""",
    """[1] Smith et al., 2020. [2] Jones, 2021.
Both references agree.""",
    """The label reads "[Question] mark" and next to it "(Current Step)".""",
    """Under the heading Current Step we see 3 of 5, under Question we see 12 of 20.""",
    """[Note]
The scale is logarithmic.
[/Note]""",
    """Question: what is the mass?
Candidate: 5 kg.
Answer: 5 kg.""",
    """User: is it blue?
Assistant: yes, it is.
So the dialogue in the comic has two lines.""",
    """---
title: Solution
score: 1
---
The metadata above is part of the picture.""",
    """Name:    Ann\tAge:\t41
Name:    Bob\tAge:\t39
Ann is older by 2 years.""",
    """{"Score": "A", "items": [1, 0, 1], "ok": true}
is what the screenshot shows.""",
    """{"bbox": [10, 20, 110, 220], "label": "cat"} has width 100 and height 200.""",
    """[[0, 1], [1, 0]] is the adjacency matrix; the graph has one edge.""",
    """The answer block would be: <answer 1>. That is not a tag we use, nor is <thinking>.""",
    """We write <thought> for ideas and < think > with blanks is just text.""",
    """<|> is the alternative operator of parsers, <|endo is no token and |end|> is none.""",
)

SCRIPTS = (
    """第一步：由图可知三角形的底为 6，高为 4。
第二步：面积为 6 × 4 ÷ 2 = 12。
所以答案是 12。""",
    """步骤 1：观察图中的时钟，时针指向 3。
步骤 2：分针指向 12。
步骤 3：所以时间是 3:00。""",
    """【问题】图中有几个圆？
【解答】共有 1 个。""",
    """问：正方形有几条边？答：4 条。（选 B）""",
    """まず、図の長さを読み取ります。
次に、5 + 7 = 12 を計算します。
答えは12です。""",
    """첫째, 그래프에서 값을 읽습니다: 25와 40.

둘째, 차이는 15입니다. 따라서 답은 15입니다.""",
    """الخطوة 1: نقرأ القيمة من الرسم البياني وهي ٤٥.
الخطوة 2: نطرح ١٥ فنحصل على ٣٠.""",
    """चरण 1: चित्र में 3 लाल वृत्त हैं।
चरण 2: इसलिए उत्तर ३ है।""",
    """Шаг 1: по графику скорость равна 20 м/с.
Шаг 2: путь равен 20 · 5 = 100 м.""",
    """Βήμα 1: το εμβαδόν είναι α · β = 3 · 4 = 12.""",
    """שלב 1: בתמונה יש 2 ריבועים.
שלב 2: לכן התשובה היא 2.""",
    """ขั้นตอนที่ 1: ในภาพมีแมว 2 ตัว
ขั้นตอนที่ 2: ดังนั้นคำตอบคือ 2""",
    """Bước 1: Trong hình có 4 quả táo.
Bước 2: Vậy đáp án là 4.""",
    """Étape 1 : la flèche pointe vers « 10 ».
Étape 2 : donc x = 10 ; c'est la réponse.""",
    """Schritt 1: Der Balken für März liegt bei 1,5 Mio. €.
Schritt 2: Das ist weniger als im Mai (2,0 Mio. €).""",
    """Paso 1: ¿Cuántos círculos hay? ¡Hay tres!
Paso 2: Cada uno vale 2, así que 3 × 2 = 6.""",
    """ধাপ ১: ছবিতে ৫টি ফুল আছে।
ধাপ ২: তাই উত্তর ৫।""",
    """படி 1: படத்தில் 6 பறவைகள் உள்ளன.""",
    """The café's “naïve” résumé: 3 × 4 = 12 — that’s fine…""",
    """The same in decomposed form: cafe\u0301, A\u030angstro\u0308m, nin\u0303o.""",
    """🍎🍎🍎 + 🍐🍐 = 5 fruits 🎉
👨‍👩‍👧 counts as 3 people 👍🏽""",
    """①  read the axis ② subtract ③ done; ½ + ¼ = ¾, x² + y³, H₂O""",
    """Full-width: Ａ＝１２，Ｂ＝［３，４］，Ｃ＜Ｄ｜Ｅ＞Ｆ.""",
    """Math letters: 𝑥 ∈ ℝ, 𝐀𝐱 = 𝐛, ∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−L|<ε.""",
    """Soft\u00adhyphen, zero\u200bwidth and a non\u00a0breaking space are left as they are.""",
)

SCIENCE = (
    """2 H2 + O2 -> 2 H2O, so 1 mol of O2 gives 2 mol of water.""",
    """[Cu(NH3)4]2+ is deep blue; [Fe(CN)6]4- is pale yellow.""",
    """SMILES: C1=CC=CC=C1 is benzene, [Na+].[Cl-] is salt, CC(=O)O is acetic acid.""",
    """\\ce{CH3COOH <=> CH3COO- + H+} with $K_a = [H^+][A^-]/[HA] = 1.8 \\times 10^{-5}$.""",
    """1. e4 e5 2. Nf3 Nc6 3. Bb5 a6
White's bishop attacks the knight; 1-0 is the result on the board.""",
    """FEN: r1bqkbnr/pppp1ppp/2n5/1B2p3/4P3/5N2/PPPP1PPP/RNBQK2R b KQkq - 3 3
Black is to move.""",
    """F = m·a = 2 kg · 9.81 m/s² = 19.62 N, rounded 19.6 N.""",
    """R = U/I = 12 V / 0.5 A = 24 Ω; in series 24 Ω + 1 Ω = 25 Ω.""",
    """DNA 5'-ATGC-3' pairs with 3'-TACG-5'. The codon AUG is the start.""",
    """p < 0.05 and p > 0.01, so the star in the figure stands for * and not for **.""",
    """x<y<z, y-x<1, z>0: with a<b we have a<|b| as well.""",
    """The coordinates are 48°51'24"N 2°21'03"E, i.e. 48.8567, 2.3508.""",
    """0.1 + 0.2 = 0.30000000000000004 in binary; 1e-3 = 0.001; .5 = 1/2; 1. = 1""",
    """Truth table: A=0,B=0 -> 0; A=0,B=1 -> 1; A=1,B=0 -> 1; A=1,B=1 -> 0. So the gate is XOR.""",
    """Scores 3:1 and 0:1 give a total of 3:2.""",
    """The closed interval [0, 1] and the open one ]0, 1[ differ by two points.""",
    """Bra-ket: <0|1> = 0 and <1|1> = 1, so |psi> = a|0> + b|1> has norm |a|^2 + |b|^2.""",
    """<x|y|z> is a matrix element; its absolute value is |<x|y|z>|.""",
    """12:00 - 10:45 = 1 h 15 min = 75 min.
75 min * 80 km/h / 60 = 100 km.""",
    """$3.50 + $1.25 = $4.75; 10 % off makes $4.275, i.e. about $4.28.""",
)

ANSWERS_AND_STYLE = (
    """The answer is 1.""",
    """Answer: 0""",
    """So the correct option is [B].""",
    """None of the above.""",
    """True, because 1 is odd.""",
    """I think this is step 2: 1 of 3 parts is shaded.""",
    """Wait, let me check again: 7 × 8 = 56, not 54. Yes, 56.""",
    """Hmm... is it correct? Reply: yes. Judge for yourself, 1 + 1 = 2.""",
    """Final Scores: home 1, away 0.""",
    """The previous step judgments were right, so the current step follows.""",
    """Therefore,
the question
is answered
by 42.""",
    "Windows line ends:\r\nfirst 3,\r\nthen 4,\r\ntogether 7.",
    "Old Mac line ends:\rfirst 3,\rthen 4.",
    "A line separator\u2028and a paragraph separator\u2029stand here.",
    "Tabs\tand  double  blanks   are kept,\n\n\n\nas are blank lines.",
    """"Step 0: 1" in quotes is how the picture labels it.""",
    """> Step 2: 1
is a quoted line of the exam sheet.""",
    """Step 1 : yes
Step 2 : no""",
    """Score: [1, 0, 1]""",
    """\\boxed{A}

\\boxed{42}

Those were the two boxes of the sheet.""",
)

ORDINARY = (
    *LATEX,
    *STEPS,
    *CODE,
    *TABLES_AND_MARKUP,
    *SCRIPTS,
    *SCIENCE,
    *ANSWERS_AND_STYLE,
)
